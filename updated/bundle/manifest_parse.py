"""Reading a manifest: what is written in it, and nothing else may be (RAUC src/manifest.c, parse_manifest).

Whether it makes sense is asked in `manifest_check`; both have RAUC's texts.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from updated.bundle import keyfile, manifest_check
from updated.bundle.keyfile import Consumer, Group, KeyFile, KeyFileError
from updated.bundle.manifest import BundleFormat, Image, Manifest
from updated.bundle.manifest_check import MISSING_SIZE
from updated.errors import BundleError

SLOT_HOOKS = ("pre-install", "install", "post-install")
BUNDLE_HOOKS = ("install-check",)
MAX_SIZE = 2**63 - 1  # bytes; RAUC keeps sizes as signed numbers, what is larger counts as missing
SECTIONS = ("update", "bundle", "handler", "hooks", "rollout")  # all keys of `rollout` are ignored
FORMATS: Final[Mapping[str | None, BundleFormat]] = {
    None: "plain",
    "plain": "plain",
    "verity": "verity",
    "crypt": "crypt",
}

# The first match wins; `*.tar*` really matches `my.target.img`, in RAUC too.
TYPES_BY_NAME = (
    ("*.ext4.caibx", "ext4-caibx"),
    ("*.vfat.caibx", "vfat-caibx"),
    ("*.ubifs.caibx", "ubifs-caibx"),
    ("*.img.caibx", "raw-caibx"),
    ("*.squashfs.caibx", "squashfs-caibx"),
    ("*.squashfs-*.caibx", "squashfs-caibx"),
    ("*.catar", "catar"),
    ("*.caidx", "caidx"),
    ("*.tar*", "tar"),
    ("*.tgz", "tar"),
    ("*.ext4", "ext4"),
    ("*.vfat", "vfat"),
    ("*.img", "raw"),
    ("*.squashfs-*", "squashfs"),
    ("*.squashfs", "squashfs"),
    ("*.ubifs", "ubifs"),
)
TYPES = frozenset({*(type_ for _, type_ in TYPES_BY_NAME), "emptyfs"})

_NOT_IN_ENVIRONMENT = re.compile(r"[^A-Za-z0-9_-]")
_HEX_32 = re.compile(r"[0-9A-Fa-f]{64}")


def parse(data: bytes, *, inline: bool) -> Manifest:
    """Read the manifest of a finished bundle and check that it is whole and consistent.

    `inline`: it was inside the signature (verity, crypt); else it is the `manifest.raucm` of a plain bundle.
    Raises BundleError with RAUC's text.
    """
    manifest = read(data)
    manifest_check.check_bundled(manifest, inline=inline)
    return manifest_check.without_missing_sizes(manifest)


def read(data: bytes) -> Manifest:
    """Read a manifest without the checks across keys.  Raises BundleError("Failed to load manifest: ...").

    An image without `size=` has the size `MISSING_SIZE`.
    """
    try:
        return _manifest(keyfile.parse(data), hashlib.sha256(data).hexdigest())
    except KeyFileError as error:
        raise BundleError(f"Failed to load manifest: {error}", hint=error.hint) from error


def type_of(filename: str) -> str | None:
    """The image type that RAUC derives from a file name; None: it knows none."""
    matching = (type_ for pattern, type_ in TYPES_BY_NAME if fnmatch.fnmatchcase(filename, pattern))
    return next(matching, None)


def _manifest(file: KeyFile, digest: str) -> Manifest:
    manifest = replace(_update(file), hash=digest)
    manifest = _with_bundle(manifest, file)
    manifest = _with_handler(manifest, file)
    manifest = _with_hooks(manifest, file)
    images, meta = [], {}
    for group in file.groups:
        if group.name.startswith("image."):
            images.append(_image(group))
        elif group.name.startswith("meta."):
            meta[_meta_label(group)] = _meta_values(group)
    for group in file.groups:
        if group.name not in SECTIONS and not group.name.startswith(("image.", "meta.")):
            raise KeyFileError(
                f"Invalid group '[{group.name}]'",
                line=group.line,
                hint=keyfile.suggest(group.name, [*SECTIONS, "image.rootfs"]),
            )
    return replace(manifest, images=tuple(images), meta=meta)


def _update(file: KeyFile) -> Manifest:
    if file.group("update") is None:
        raise KeyFileError("Key file does not have group “update”")
    update = _section(file, "update")
    manifest = Manifest(
        compatible=update.string("compatible"),
        version=update.optional_string("version"),
        description=update.optional_string("description"),
        build=update.optional_string("build"),
        min_rauc_version=update.optional_string("min-rauc-version"),
    )
    update.finish()
    return manifest


def _with_bundle(manifest: Manifest, file: KeyFile) -> Manifest:
    bundle = _section(file, "bundle")
    name = bundle.optional_string("format")
    if name not in FORMATS:
        raise KeyFileError(f"Invalid format value '{name}' in group '[bundle]'")
    manifest = replace(manifest, format=FORMATS[name])
    if manifest.format != "plain":
        manifest = replace(
            manifest,
            verity_hash=_hex_32(bundle, "verity-hash", f"Invalid hash for {name} bundle"),
            verity_salt=_hex_32(bundle, "verity-salt", f"Invalid salt for {name} bundle"),
            verity_size=_number_or_none(bundle, "verity-size") or 0,
        )
    if manifest.format == "crypt":
        manifest = replace(manifest, crypt_key=_hex_32(bundle, "crypt-key", "Invalid key for crypt bundle"))
    bundle.finish()
    return manifest


def _with_handler(manifest: Manifest, file: KeyFile) -> Manifest:
    handler = _section(file, "handler")
    filename, args = handler.optional_string("filename"), handler.optional_string("args")
    if args and not filename:
        raise KeyFileError(
            "Setting 'args' requires a full custom handler to be defined "
            "under 'filename' in group '[handler]'."
        )
    handler.finish()
    return replace(manifest, handler_filename=filename, handler_args=args)


def _with_hooks(manifest: Manifest, file: KeyFile) -> Manifest:
    hooks = _section(file, "hooks")
    filename = hooks.optional_string("filename")
    wanted = _hooks(hooks, BUNDLE_HOOKS, "install hook")
    hooks.finish()
    return replace(manifest, hook_filename=filename, hooks=wanted)


def _image(group: Group) -> Image:
    try:
        return _image_from(group)
    except KeyFileError as error:
        raise KeyFileError(
            f"Cannot parse [{group.name}]: {error}", line=error.line, hint=error.hint
        ) from error


def _image_from(group: Group) -> Image:
    _, target, *variant = group.name.split(".", 2)
    slot_class, _, artifact = target.partition("/")
    keys = Consumer(group)
    digest = keys.optional_string("sha256")
    size = keys.optional_uint64("size")
    hooks = _hooks(keys, SLOT_HOOKS, "slot hook")
    filename = keys.string("filename") if "filename" in group else None
    image = Image(
        slot_class=slot_class,
        artifact=artifact if "/" in target else None,
        variant=variant[0] if variant else None,
        filename=filename,
        sha256=digest.lower() if digest else None,
        size=MISSING_SIZE if size is None or size > MAX_SIZE else size,
        hooks=hooks,
    )
    if image.artifact is None:
        image = _with_type(image, keys)
    _check_filename(image)
    for dropped in ("version", "description", "build"):  # RAUC reads over them, too
        keys.ignore(dropped)
    image = replace(
        image,
        adaptive=keys.optional_list("adaptive") or (),
        convert=keys.optional_list("convert") or (),
        converted=keys.optional_list("converted") or (),
    )
    keys.finish()
    return image


def _with_type(image: Image, keys: Consumer) -> Image:
    """`type=`, or what the file name tells; an install hook does not need either."""
    custom = "install" in image.hooks
    if "type" in keys.group:
        type_ = keys.string("type")
        if type_ not in TYPES and not custom:
            raise KeyFileError(f"Unsupported image type '{type_}'", hint=keyfile.suggest(type_, TYPES))
        return replace(image, type=type_)
    if custom or image.filename is None:
        return image
    type_by_name = type_of(image.filename)
    if type_by_name is None:
        raise KeyFileError(
            f"No 'type=' set and unable to map extension of file '{image.filename}' to known image type"
        )
    return replace(image, type=type_by_name, type_detected=True)


def _check_filename(image: Image) -> None:
    if image.type == "emptyfs":
        if image.filename is not None:
            raise KeyFileError("It is not supported setting 'filename' when 'type=emptyfs' is set")
    elif image.filename is None and "install" not in image.hooks:
        raise KeyFileError("Missing required 'filename'")


def _hooks(keys: Consumer, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The hooks asked for, each once, in RAUC's order."""
    wanted = keys.optional_list("hooks") or ()
    for name in wanted:
        if name not in known:
            raise KeyFileError(f"{what} type '{name}' not supported", hint=keyfile.suggest(name, known))
    return tuple(name for name in known if name in wanted)


def _meta_label(group: Group) -> str:
    label = group.name.removeprefix("meta.")
    if "." in label:
        raise KeyFileError(
            f"invalid metadata section name '{group.name}' (must contain a single '.')", line=group.line
        )
    _check_environment_name(label, f"Invalid metadata section name '{label}': ", group.line)
    return label


def _meta_values(group: Group) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for entry in group.entries:
        if entry.key in values:
            raise KeyFileError(
                f"Key file does not have key “{entry.key}” in group “{group.name}”",
                line=entry.line,
                hint="The key is there more than once.",
            )
        values[entry.key] = Consumer(replace(group, entries=(entry,))).string(entry.key)
        _check_environment_name(entry.key, f"Invalid metadata key name '{entry.key}': ", entry.line)
    return values


def _check_environment_name(name: str, prefix: str, line: int) -> None:
    bad = _NOT_IN_ENVIRONMENT.search(name)
    if bad:
        raise KeyFileError(f"{prefix}Character '{bad[0]}' is unsuitable for environment variables", line=line)


def _section(file: KeyFile, name: str) -> Consumer:
    """An absent group is as an empty one."""
    return Consumer(file.group(name) or Group(name, (), 0))


def _hex_32(keys: Consumer, key: str, message: str) -> bytes | None:
    text = keys.optional_string(key)
    if text is None:
        return None
    if not _HEX_32.fullmatch(text):
        raise BundleError(message, hint=f"'{key}' must be 64 hexadecimal digits.")
    return bytes.fromhex(text)


def _number_or_none(keys: Consumer, key: str) -> int | None:
    """RAUC takes a number that cannot be read for 0, that is, for missing."""
    try:
        return keys.optional_uint64(key)
    except KeyFileError:
        keys.ignore(key)
        return None
