"""Writing a manifest as `rauc bundle` writes it (RAUC src/manifest.c, prepare_manifest)."""

from __future__ import annotations

from collections.abc import Iterator

from updated.bundle import keyfile
from updated.bundle.keyfile import Value
from updated.bundle.manifest import Image, Manifest

_Entries = list[tuple[str, Value]]


def render(manifest: Manifest, *, explicit_format: bool = True) -> bytes:
    """The manifest as a key file, keys in RAUC's order, `[meta.*]` in the order of the manifest.

    `explicit_format`: name the format plain, too (RAUC before 1.5 refuses a `[bundle]` group).
    Unlike RAUC's, it keeps `min-rauc-version`: a demand of the maker should not vanish silently.
    """
    return keyfile.render(
        (name, entries) for name, entries in _groups(manifest, explicit_format=explicit_format) if entries
    )


def _groups(manifest: Manifest, *, explicit_format: bool) -> Iterator[tuple[str, _Entries]]:
    yield (
        "update",
        _given(
            ("compatible", manifest.compatible),
            ("version", manifest.version),
            ("description", manifest.description),
            ("build", manifest.build),
            ("min-rauc-version", manifest.min_rauc_version),
        ),
    )
    if explicit_format or manifest.format != "plain":
        yield (
            "bundle",
            _given(
                ("crypt-key", manifest.crypt_key.hex() if manifest.crypt_key else None),
                ("format", manifest.format),
                ("verity-hash", manifest.verity_hash.hex() if manifest.verity_hash else None),
                ("verity-salt", manifest.verity_salt.hex() if manifest.verity_salt else None),
                ("verity-size", manifest.verity_size or None),
            ),
        )
    yield "handler", _given(("filename", manifest.handler_filename), ("args", manifest.handler_args))
    yield "hooks", _given(("filename", manifest.hook_filename), ("hooks", manifest.hooks))
    for image in manifest.images:
        yield _image_group(image), _image(image)
    for label, values in manifest.meta.items():
        yield f"meta.{label}", list(values.items())


def _image_group(image: Image) -> str:
    artifact = f"/{image.artifact}" if image.artifact is not None else ""
    variant = f".{image.variant}" if image.variant is not None else ""
    return f"image.{image.slot_class}{artifact}{variant}"


def _image(image: Image) -> _Entries:
    return _given(
        ("sha256", image.sha256),
        ("size", image.size if image.sha256 else None),
        ("filename", image.filename),
        ("type", None if image.type_detected else image.type),
        ("hooks", image.hooks),
        ("adaptive", image.adaptive),
        ("convert", image.convert),
        ("converted", image.converted),
    )


def _given(*entries: tuple[str, Value | None]) -> _Entries:
    """Without the keys that have no value: RAUC leaves them out."""
    return [(key, value) for key, value in entries if value is not None and value != ()]
