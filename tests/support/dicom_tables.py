"""What `dicom-validator` needs to know of the standard, from the tables of PS3.3 that highdicom ships: no download.

The tables have modules, attributes and their types, but neither conditions nor enumerated values: an attribute of type
1C or 2C may be there or not. An attribute that no module of the object has is an error.
"""

import json
import pkgutil
from functools import cache

from dicom_validator.validator.dicom_info import DicomInfo
from pydicom.datadict import DicomDictionary, tag_for_keyword


def _table(name):
    return json.loads(pkgutil.get_data("highdicom", f"_standard/{name}.json"))


def _id(tag):
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


@cache
def dicom_info() -> DicomInfo:
    classes, iods = _table("sop_class_iod_map"), _table("iod_module_map")
    modules = {name: _module(attributes) for name, attributes in _table("module_attribute_map").items()}
    described = {
        uid: {
            "title": iod,
            "modules": {
                item["key"]: {"ref": item["key"], "use": "M" if item["usage"] == "M" else "U"} for item in iods[iod]
            },
            "group_macros": {},
        }
        for uid, iod in classes.items()
    }
    dictionary = {
        _id(tag): {"name": entry[2], "vr": entry[0], "vm": entry[1], "prop": ""}
        for tag, entry in DicomDictionary.items()
    }
    return DicomInfo(dictionary, described, modules)


def _module(attributes):
    """Attributes by tag; those of a sequence's items below it."""
    tree = {}
    for attribute in attributes:
        own = tree
        for keyword in attribute["path"]:
            tag = tag_for_keyword(keyword)
            own = own.setdefault(_id(tag), {"name": keyword, "type": "3"}).setdefault("items", {})
        if (tag := tag_for_keyword(attribute["keyword"])) is not None:
            said = {"name": attribute["keyword"], "type": attribute["type"]}
            if attribute["type"] in ("1C", "2C"):
                said["cond"] = {"type": "U"}
            own.setdefault(_id(tag), {}).update(said)
    return tree
