"""What `info` prints of a manifest (RAUC src/main.c, `info_formatter_*`).  Pure."""

from __future__ import annotations

from collections.abc import Iterator

from updated.bundle.manifest import Image, Manifest
from updated.cli import render
from updated.cli.render import BOLD, NORMAL, printable

FORMATS = ("readable", "shell", "json", "json-pretty", "json-2")

_IMAGE_HOOKS = ("pre-install", "install", "post-install")  # the order RAUC prints them in


def info(manifest: Manifest, output_format: str) -> str:
    """The manifest in one of `FORMATS`, without the last newline."""
    if output_format == "shell":
        return render.shell(_variables(manifest))
    if output_format == "json-2":
        return render.json_text(_json_2(manifest), pretty=True)
    if output_format.startswith("json"):
        return render.json_text(_json(manifest), pretty=output_format == "json-pretty")
    return "\n".join(_readable(manifest)) + "\n"


def _readable(manifest: Manifest) -> Iterator[str]:
    yield f"Compatible:     '{printable(manifest.compatible)}'"
    yield f"Version:        '{printable(manifest.version)}'"
    yield f"Description:    '{printable(manifest.description)}'"
    yield f"Build:          '{printable(manifest.build)}'"
    yield f"Hooks:          '{' '.join(_bundle_hooks(manifest))}'"
    yield f"Bundle Format:  {manifest.format}"
    if manifest.format == "crypt":
        yield "  Crypt Key:    '<hidden>'"
    if manifest.format != "plain":
        yield f"  Verity Salt:  '{_hex(manifest.verity_salt)}'"
        yield f"  Verity Hash:  '{_hex(manifest.verity_hash)}'"
        yield f"  Verity Size:  {manifest.verity_size}"
    yield f"Manifest Hash:  '{manifest.hash}'"
    yield ""
    if manifest.meta:
        yield "Metadata:"
    for group, pairs in manifest.meta.items():
        yield f"  {printable(group)}:"
        yield from (f"    {printable(key)}: {printable(value)}" for key, value in pairs.items())
    count = len(manifest.images)
    yield ""
    yield f"{count} Image{'' if count == 1 else 's'}{':' if count else ''}"
    for image in manifest.images:
        yield from _readable_image(image)


def _readable_image(image: Image) -> Iterator[str]:
    yield f"  {BOLD}[{printable(image.slot_class)}]{NORMAL}"
    if image.variant is not None:
        yield f"    Variant:   {printable(image.variant)}"
    if image.artifact is not None:
        yield f"    Artifact:  {printable(image.artifact)}"
    if image.filename is None:
        yield "    (no image file)"
    else:
        yield f"    Filename:  {printable(image.filename)}"
        yield f"    Type:      {printable(image.type)}{' (detected)' if image.type_detected else ''}"
        yield f"    Checksum:  {printable(image.sha256)}"
        yield f"    Size:      {render.size(image.size)}"
    yield f"    Hooks:     {' '.join(_image_hooks(image))}"
    if image.adaptive:
        yield f"    Adaptive:  {printable(' '.join(image.adaptive))}"
    if image.convert:
        yield f"    Convert:   {printable(' '.join(image.convert))}"
    if image.converted:
        yield "    Converted:" + "".join(f" '{printable(name)}'" for name in image.converted)


def _variables(manifest: Manifest) -> Iterator[tuple[str, str | int | None]]:
    yield "RAUC_MF_COMPATIBLE", manifest.compatible
    yield "RAUC_MF_VERSION", manifest.version
    yield "RAUC_MF_DESCRIPTION", manifest.description
    yield "RAUC_MF_BUILD", manifest.build
    yield "RAUC_MF_HASH", manifest.hash
    yield "RAUC_MF_FORMAT", manifest.format
    yield "RAUC_MF_IMAGES", len(manifest.images)
    yield "RAUC_MF_HOOKS", " ".join(_bundle_hooks(manifest))
    for group, pairs in manifest.meta.items():
        for key, value in pairs.items():
            names = render.env_key(group), render.env_key(key)
            if None not in names:
                yield f"RAUC_META_{names[0]}_{names[1]}", value
    for number, image in enumerate(manifest.images):
        yield f"RAUC_IMAGE_NAME_{number}", image.filename
        yield f"RAUC_IMAGE_CLASS_{number}", image.slot_class
        yield f"RAUC_IMAGE_ARTIFACT_{number}", image.artifact
        yield f"RAUC_IMAGE_VARIANT_{number}", image.variant
        yield f"RAUC_IMAGE_DIGEST_{number}", image.sha256
        yield f"RAUC_IMAGE_SIZE_{number}", image.size
        yield f"RAUC_IMAGE_HOOKS_{number}", " ".join(_image_hooks(image))
        if image.adaptive:
            yield f"RAUC_IMAGE_ADAPTIVE_{number}", " ".join(image.adaptive)
        if image.convert:
            yield f"RAUC_IMAGE_CONVERT_{number}", " ".join(image.convert)
        if image.converted:
            yield f"RAUC_IMAGE_CONVERTED_{number}", " ".join(image.converted)


def _json(manifest: Manifest) -> dict[str, object]:
    return {
        "compatible": manifest.compatible,
        "version": manifest.version,
        "description": manifest.description,
        "build": manifest.build,
        "format": manifest.format,
        "hooks": _bundle_hooks(manifest),
        "hash": manifest.hash,
        "images": [{image.slot_class: _json_image(image)} for image in manifest.images],
    }


def _json_image(image: Image) -> dict[str, object]:
    members: dict[str, object] = {
        "artifact": image.artifact,
        "variant": image.variant,
        "filename": image.filename,
        "type": image.type,
        "checksum": image.sha256,
        "size": image.size,
        "hooks": _image_hooks(image),
        "adaptive": list(image.adaptive),
    }
    if image.convert:
        members["convert"] = list(image.convert)
    if image.converted:
        members["converted"] = list(image.converted)
    return members


def _json_2(manifest: Manifest) -> dict[str, object]:
    """The dictionary of D-Bus' InspectBundle (RAUC src/manifest.c, `r_manifest_to_dict`)."""
    verity = manifest.format != "plain"
    handler = {"filename": manifest.handler_filename, "args": manifest.handler_args}
    hooks = {"filename": manifest.hook_filename, "hooks": list(manifest.hooks)}
    return render.without_none(
        {
            "manifest-hash": manifest.hash or None,
            "update": render.without_none(
                {
                    "compatible": manifest.compatible,
                    "version": manifest.version,
                    "description": manifest.description,
                    "build": manifest.build,
                }
            ),
            "bundle": render.without_none(
                {
                    "format": manifest.format,
                    "verity-hash": _hex(manifest.verity_hash) if verity else None,
                    "verity-salt": _hex(manifest.verity_salt) if verity else None,
                    "verity-size": manifest.verity_size if verity else None,
                }
            ),
            "hooks": hooks if manifest.hook_filename else None,
            "handler": render.without_none(handler) if manifest.handler_filename else None,
            "images": [_json_2_image(image) for image in manifest.images],
            "meta": {group: dict(pairs) for group, pairs in manifest.meta.items()},
        }
    )


def _json_2_image(image: Image) -> dict[str, object]:
    return render.without_none(
        {
            "slot-class": image.slot_class,
            "artifact": image.artifact,
            "variant": image.variant,
            "filename": image.filename,
            "type": image.type,
            "checksum": image.sha256,
            "size": image.size or None,
            "hooks": _image_hooks(image),
            "adaptive": list(image.adaptive) or None,
            "convert": list(image.convert) or None,
            "converted": list(image.converted) or None,
        }
    )


def _bundle_hooks(manifest: Manifest) -> list[str]:
    return [hook for hook in ("install-check",) if hook in manifest.hooks]


def _image_hooks(image: Image) -> list[str]:
    return [hook for hook in _IMAGE_HOOKS if hook in image.hooks]


def _hex(digest: bytes | None) -> str:
    return digest.hex() if digest else ""
