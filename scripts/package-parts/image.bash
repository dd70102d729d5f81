# shellcheck shell=bash disable=SC2154
# Sourced by scripts/package. build_image_folder: the folder `image`, of which an engine builds a container image: the recipe and one archive.
build_image_folder() {
    local tree=$work/image archive=$output/image/root.tar library
    local same=(--sort=name --format=gnu --numeric-owner --mtime="@$SOURCE_DATE_EPOCH")
    mkdir -p "$output/image" "$tree/usr/bin" "$tree/var/lib/millrace"
    cp "$stage/usr/bin/millrace" "$tree/usr/bin/"
    # What was built here needs nothing else; of a binary that is given, the libraries come along.
    if [[ $linked != static ]]; then
        while read -r library; do
            mkdir -p "$tree/$(dirname "$library")"
            cp -L "$library" "$tree/$library"
        done < <(ldd "$given" | grep -o '/[^ ]*')
    fi
    find "$tree" -type d -exec chmod 755 {} +
    chmod 750 "$tree/var/lib/millrace"
    tar -C "$tree" "${same[@]}" --owner=0 --group=0 --exclude=./var/lib/millrace -cf "$archive" .
    # The user that the recipe names.
    tar -C "$tree" "${same[@]}" --owner=65532 --group=65532 -rf "$archive" ./var/lib/millrace
    cp "$packaging/container/Containerfile" "$output/image/"
}
