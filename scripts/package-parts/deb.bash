# shellcheck shell=bash disable=SC2154
# Sourced by scripts/package. build_deb: makes a .deb of the stage and sets deb to its name.
build_deb() {
    local tree=$work/deb
    deb=millrace_$version-1_$deb_arch.deb
    cp -a "$stage" "$tree"
    mkdir "$tree/DEBIAN"
    cat > "$tree/usr/share/doc/millrace/copyright" <<END_COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: millrace

Files: *
Copyright: $(date -ud "@$SOURCE_DATE_EPOCH" +%Y) the Millrace authors
License: Apache-2.0
 On Debian systems the full text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
END_COPYRIGHT
    gzip -9n > "$tree/usr/share/doc/millrace/changelog.Debian.gz" <<END_CHANGELOG
millrace ($version-1) unstable; urgency=medium

  * Release $version; changelog.gz says what users notice.

 -- $maintainer  $(date -Rud "@$SOURCE_DATE_EPOCH")
END_CHANGELOG
    cat > "$tree/DEBIAN/control" <<END_CONTROL
Package: millrace
Version: $version-1
Architecture: $deb_arch
Maintainer: $maintainer
Section: net
Priority: optional
Installed-Size: $(du -sk --apparent-size "$tree" | cut -f 1)
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: ${deb_depends}adduser, debconf (>= 0.5) | debconf-2.0
Description: streaming storage engine that speaks the Kafka protocol
 ${description//$'\n'/$'\n' }
END_CONTROL
    echo /etc/millrace/millrace.yaml > "$tree/DEBIAN/conffiles"
    install -m 644 "$packaging/debian/templates" "$tree/DEBIAN/"
    install -m 755 "$packaging/debian"/{config,postinst,prerm,postrm} "$tree/DEBIAN/"
    (cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) > "$tree/DEBIAN/md5sums"
    chmod 644 "$tree"/DEBIAN/{control,conffiles,md5sums} "$tree/usr/share/doc/millrace"/*
    chmod 755 "$tree/DEBIAN"
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$output/$deb" >/dev/null
}
