"""What goes into a bundle: the folder of its maker, checked and completed, without touching it.

Rules and texts: RAUC src/bundle.c (check_workdir_content, generate_adaptive_data), src/manifest.c.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
from dataclasses import replace
from pathlib import Path

from updated.authoring.block_index import write_index
from updated.bundle import block_index, manifest_check, manifest_parse
from updated.bundle.manifest import Image, Manifest
from updated.errors import BundleError, NotSupportedError

MANIFEST = "manifest.raucm"


def read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """The maker's manifest and its bytes.  Raises BundleError, NotSupportedError, OSError."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"Failed to load manifest: Failed to open file “{path}”: {error.strerror}"
        ) from error
    manifest = manifest_parse.read(data)
    manifest_check.check_input(manifest)
    if manifest.format == "crypt":
        raise NotSupportedError(
            "Bundles in crypt format cannot be made yet", hint="Use `rauc bundle`, or the verity format."
        )
    for image in manifest.images:
        if image.convert:
            raise NotSupportedError(f"Image converters are not supported yet ({image.filename})")
    return manifest, data


def stage(folder: Path, work: Path) -> None:
    """Fill the empty folder `work` with links to (or copies of) all of `folder` but its manifest.

    Raises BundleError for what RAUC does not allow in a bundle, OSError.
    """
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            _stage_entry(path, work / path.name, top_level=True)


def complete(manifest: Manifest, folder: Path, work: Path) -> Manifest:
    """Fill in digest and size of every image, and write the block hash indexes that it asks for.

    Raises BundleError, OSError.  `folder` is only named in messages.
    """
    hook = manifest.hook_filename
    if hook and not (work / hook).exists():
        raise BundleError(f"hook file '{hook}' does not exist in bundle content dir ({folder})")
    handler = manifest.handler_filename
    if handler and not (work / handler).exists():
        raise BundleError(f"handler file '{handler}' does not exist in bundle content dir ({folder})")
    images = tuple(_complete_image(image, folder, work) for image in manifest.images)
    return replace(manifest, images=images)


def _stage_entry(path: Path, target: Path, *, top_level: bool) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        _check_symlink(path)
        target.symlink_to(path.readlink())
    elif stat.S_ISDIR(mode):
        if top_level and path.name.startswith("."):
            raise BundleError(
                f"hidden directories are not supported as top-level bundle contents ({path.name})"
            )
        target.mkdir()
        for entry in sorted(path.iterdir()):
            _stage_entry(entry, target / entry.name, top_level=False)
        target.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)  # or it could not be cleaned up
    elif stat.S_ISREG(mode):
        _link_or_copy(path, target)
    else:
        raise BundleError(f"only regular files are supported as bundle contents ({path.name})")


def _check_symlink(path: Path) -> None:
    target = str(path.readlink())
    if target.startswith("/"):
        raise BundleError(f"absolute symlinks are not supported as bundle contents ({path.name})")
    if "/" in target:
        raise BundleError(f"symlinks containing slashes are not supported as bundle contents ({path.name})")


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        target.hardlink_to(path)
    except OSError:  # another filesystem, one without links, or somebody else's file
        shutil.copy2(path, target)


def _complete_image(image: Image, folder: Path, work: Path) -> Image:
    if image.filename is None:
        return replace(image, sha256=None, size=0)
    path = work / image.filename
    if not path.is_file():
        raise BundleError(
            f"image file '{image.filename}' for slot '{image.slot_class}' "
            f"does not exist in bundle content dir ({folder})"
        )
    for method in image.adaptive:
        if method == block_index.METHOD:
            write_index(path)
        elif method != "adaptive-test-method":
            raise BundleError(f"Unsupported adaptive method: {method}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return replace(image, sha256=digest, size=size)
