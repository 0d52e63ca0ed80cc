"""Reads SquashFS 4.0 images without mounting them: no privileges, every byte verified before use."""

from updated.bundle.squashfs.image import SquashFS, open_image
from updated.bundle.squashfs.inodes import Inode
from updated.bundle.squashfs.layout import FileLayout, Fragment

__all__ = ["FileLayout", "Fragment", "Inode", "SquashFS", "open_image"]
