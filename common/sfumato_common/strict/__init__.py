"""Strict settings: files as people write them, read into pydantic models, every fault at once with line and remedy."""

from sfumato_common.strict.document import Document, read_document
from sfumato_common.strict.model import Strict, load_kind, load_yaml, parse, parse_document, read_signed
from sfumato_common.strict.writing import yaml_text, yaml_word

__all__ = [
    "Document",
    "Strict",
    "load_kind",
    "load_yaml",
    "parse",
    "parse_document",
    "read_document",
    "read_signed",
    "yaml_text",
    "yaml_word",
]
