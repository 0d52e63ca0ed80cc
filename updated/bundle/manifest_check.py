"""Does a manifest make sense?  (RAUC src/manifest.c, check_manifest_*.)

RAUC leaves some of these checks out in `rauc info`; here all of them are always made.
"""

from __future__ import annotations

import re
from dataclasses import replace

from updated.bundle.manifest import Image, Manifest
from updated.core import version
from updated.core.version import RAUC_VERSION, VersionError
from updated.errors import BundleError

MISSING_SIZE = -1  # size of an image without `size=`, until the checks are over
BLOCK = 4096  # bytes

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_bundled(manifest: Manifest, *, inline: bool) -> None:
    """Check the manifest of a finished bundle.  Raises BundleError with RAUC's text."""
    if inline and manifest.format == "plain":
        raise BundleError("Bundle format 'plain' not allowed for external manifest")
    if not inline and manifest.format != "plain":
        raise BundleError(f"Bundle format '{manifest.format}' not allowed for internal manifest")
    _check_common(manifest)
    if inline:
        _check_verity(manifest)
    else:
        _check_plain(manifest)
    for image in manifest.images:
        _check_filename(image)
        _check_image(image)


def check_input(manifest: Manifest) -> None:
    """Check the manifest that a bundle is to be made of: digests and sizes in it do not count.

    Raises BundleError with RAUC's text.
    """
    _check_common(manifest)
    if manifest.format == "plain":
        _check_plain(manifest)
    if manifest.verity_hash or manifest.verity_salt or manifest.verity_size or manifest.crypt_key:
        raise BundleError(
            "Unexpected verity or crypt options in input manifest",
            hint="They are filled in when the bundle is made: remove them from manifest.raucm.",
        )
    for image in manifest.images:
        _check_input_image(image)


def without_missing_sizes(manifest: Manifest) -> Manifest:
    """After the checks only images that need no size are without one: it is 0."""
    images = (replace(image, size=0) if image.size == MISSING_SIZE else image for image in manifest.images)
    return replace(manifest, images=tuple(images))


def _check_common(manifest: Manifest) -> None:
    if manifest.min_rauc_version is not None:
        _check_min_rauc_version(manifest.min_rauc_version)
    if not manifest.hook_filename and (manifest.hooks or any(image.hooks for image in manifest.images)):
        raise BundleError("Hooks used, but no hook 'filename' defined in [hooks] section")
    for filename in (manifest.hook_filename, manifest.handler_filename):
        if filename and (filename.startswith("/") or ".." in filename.split("/")):
            raise BundleError(f"Hook or handler {filename} must not be outside of the bundle")


def _check_min_rauc_version(text: str) -> None:
    try:
        wanted = version.parse(text)
    except VersionError:
        wanted = None
    if wanted is None or wanted < version.parse("0"):
        raise BundleError(
            "Failed to parse 'min-rauc-version'. "
            f"Expected 'Major[.Minor[.Patch]][-pre_release]]', got '{text}'"
        )
    if wanted > version.parse(RAUC_VERSION):
        raise BundleError(
            f"Minimum RAUC version in manifest ({text}) is newer than current version ({RAUC_VERSION})"
        )
    if wanted <= version.parse("1.13"):
        raise BundleError(
            f"Minimum RAUC version field in manifest is only supported since 1.14 (not '{text}')"
        )


def _check_plain(manifest: Manifest) -> None:
    for image in manifest.images:
        if image.artifact is not None:
            raise BundleError("Artifacts are not supported in plain bundles")
        if image.convert or image.converted:
            raise BundleError("Image converters are not supported in plain bundles")


def _check_verity(manifest: Manifest) -> None:
    if manifest.format == "crypt" and manifest.crypt_key is None:
        raise BundleError("Missing key for crypt bundle")
    if manifest.verity_hash is None:
        raise BundleError(f"Missing hash for {manifest.format} bundle")
    if manifest.verity_salt is None:
        raise BundleError(f"Missing salt for {manifest.format} bundle")
    if not manifest.verity_size:
        raise BundleError(f"Missing size for {manifest.format} bundle")
    if manifest.verity_size % BLOCK:
        raise BundleError(f"Unaligned size for {manifest.format} bundle")


def _check_filename(image: Image) -> None:
    filename = image.filename
    if filename is None:
        if image.adaptive:
            raise BundleError("'adaptive' requires 'filename' to be set")
        return
    if "/" in filename:
        raise BundleError(f"Image filename {filename} must not contain '/'")
    if filename in ("", ".", "..") or "\0" in filename:
        raise BundleError(f"Image filename '{filename}' is not the name of a file")


def _check_image(image: Image) -> None:
    if image.filename is None:
        return
    if image.sha256 is None:
        raise BundleError(f"Unsupported checksum algorithm for image {image.filename}")
    if not _SHA256.fullmatch(image.sha256):
        raise BundleError(f"Invalid digest {image.sha256} for image {image.filename}")
    if image.size == MISSING_SIZE and "install" not in image.hooks:
        raise BundleError(f"Missing size for image {image.filename}")
    if not image.convert:
        return
    if not image.converted:
        raise BundleError(f"Missing converted outputs for image {image.filename}")
    if len(image.convert) != len(image.converted):
        raise BundleError(f"Inconsistent number of converted inputs/outputs for image {image.filename}")
    for output in image.converted:
        if "/" in output or output in ("", ".", ".."):
            raise BundleError(f"Converted output {output} of image {image.filename} must not contain '/'")


def _check_input_image(image: Image) -> None:
    _check_filename(image)
    if image.converted:
        raise BundleError("Unexpected 'converted' option in input manifest")
    if "install" in image.hooks and len(image.hooks) > 1:
        raise BundleError("An 'install' hook must not be combined with 'pre-install' or 'post-install' hooks")
