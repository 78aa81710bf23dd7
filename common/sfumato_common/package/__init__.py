"""The release package: bytes in, bytes out; no pickle, nothing executable."""

from sfumato_common.package.package import (
    Package,
    PackageImage,
    at_once,
    build_package,
    check_image,
    check_images,
    check_pixels,
    open_package,
)

__all__ = [
    "Package",
    "PackageImage",
    "at_once",
    "build_package",
    "check_image",
    "check_images",
    "check_pixels",
    "open_package",
]
