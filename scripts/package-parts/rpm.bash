# shellcheck shell=bash disable=SC2154
# Sourced by scripts/package. build_rpm: makes an .rpm of the stage and sets rpm to its name.
build_rpm() {
    local files spec
    rpm=millrace-$version-1.$machine.rpm
    # Everything but what the specification names itself.
    files=$(cd "$stage" && find . -type f ! -path './etc/*' -printf '/%P\n' | sort)
    spec=$(< "$packaging/millrace.spec.in")
    spec=${spec//@VERSION@/$version}
    spec=${spec//@ARCH@/$machine}
    spec=${spec//@REQUIRES@/$rpm_requires}
    spec=${spec//@DESCRIPTION@/$description}
    spec=${spec//@STAGE@/$work/rpm-stage}
    spec=${spec//@FILES@/${files//\/lib\/systemd//usr/lib/systemd}}
    printf '%s\n' "$spec" > "$work/millrace.spec"
    # Where /lib is a link, an .rpm must not own it.
    cp -a "$stage" "$work/rpm-stage"
    mkdir -p "$work/rpm-stage/usr/lib"
    mv "$work/rpm-stage/lib/systemd" "$work/rpm-stage/usr/lib/systemd"
    rmdir "$work/rpm-stage/lib"
    rpmbuild --quiet -bb --target "$machine" --define "_topdir $work/rpm" --define "_rpmdir $work/rpm/out" \
        --define 'debug_package %{nil}' --define '__os_install_post %{nil}' --define '_build_id_links none' \
        --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' \
        --define '_buildhost localhost' "$work/millrace.spec" > "$work/rpm.log" 2>&1 || { cat "$work/rpm.log" >&2; return 1; }
    cp "$work/rpm/out/$machine/$rpm" "$output/"
}
