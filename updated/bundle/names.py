"""X.501 names, and how OpenSSL prints them on one line (`-nameopt oneline`), as RAUC shows them."""

from __future__ import annotations

from typing import NamedTuple

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from updated.bundle.cms import decode_field

COMMON_NAME = "2.5.4.3"

# OpenSSL's short names (crypto/objects/objects.txt); what is not here shows as dotted numbers.
SHORT_NAMES = {
    COMMON_NAME: "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.16": "postalAddress",
    "2.5.4.17": "postalCode",
    "2.5.4.20": "telephoneNumber",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.45": "x500UniqueIdentifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}

# ASN.1 string tags; OpenSSL takes TeletexString for Latin-1.
ENCODINGS = {
    12: "utf-8",  # UTF8String
    18: "latin-1",  # NumericString
    19: "latin-1",  # PrintableString
    20: "latin-1",  # TeletexString
    22: "latin-1",  # IA5String
    26: "latin-1",  # VisibleString
    28: "utf-32-be",  # UniversalString
    30: "utf-16-be",  # BMPString
}


@asn1.sequence
class AttributeFields:
    type: ObjectIdentifier
    value: asn1.TLV


@asn1.sequence
class NameFields:
    value: list[asn1.SetOf[AttributeFields]]


class NameAttribute(NamedTuple):
    """`text` is None where the value is no string; `der` then is what there is to show."""

    oid: str
    text: str | None
    der: bytes


Name = tuple[tuple[NameAttribute, ...], ...]  # RDNs in the certificate's order


def read_name(der: bytes) -> Name:
    """Read a DER Name.  Raises ValueError."""
    rdns = decode_field(NameFields, der).value
    return tuple(tuple(_read_attribute(fields) for fields in rdn.as_list()) for rdn in rdns)


def _read_attribute(fields: AttributeFields) -> NameAttribute:
    value = fields.value
    encoding = ENCODINGS.get(value.tag_bytes[0])
    text = None if encoding is None else bytes(value.data).decode(encoding)
    return NameAttribute(fields.type.dotted_string, text, asn1.encode_der(value))


def common_name(name: Name) -> str | None:
    """The first CN of `name`, None without one."""
    for rdn in name:
        for attribute in rdn:
            if attribute.oid == COMMON_NAME and attribute.text is not None:
                return attribute.text
    return None


def oneline(name: Name) -> str:
    """`O = "Foo, Inc", CN = Signer`: only ASCII without control characters, whatever the name holds."""
    return ", ".join(" + ".join(_show(attribute) for attribute in rdn) for rdn in name)


def _show(attribute: NameAttribute) -> str:
    return f"{SHORT_NAMES.get(attribute.oid, attribute.oid)} = {_show_value(attribute)}"


def _show_value(attribute: NameAttribute) -> str:
    text = attribute.text
    if text is None:
        return "#" + attribute.der.hex().upper()
    escaped = "".join(_escape(byte) for byte in text.encode("utf-8", "surrogatepass"))
    blank_ends = text.startswith(" ") or text.endswith(" ")
    hash_first = text.startswith("#") and len(text) > 1  # OpenSSL leaves a lone "#" alone
    quoted = blank_ends or hash_first or any(character in ",+<>;" for character in text)
    return f'"{escaped}"' if quoted else escaped


def _escape(byte: int) -> str:
    if byte in b'"\\':
        return "\\" + chr(byte)
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:02X}"
