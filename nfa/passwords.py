"""Find passwords in typed texts and in the environment, however they are written."""

import html
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

_NO_PORT = r"""(?!\d{1,5}(?:[/?#"'<>\s]|$))"""
_QUOTE_ENDS = r"""["'](?:[\s,:;)\]}>\\]|$)"""  # quotes that end a text; other quotes may occur in a password


def _address(inside: str, end: str) -> re.Pattern[str]:
    """Return a pattern of an address from its `://` on, with a password in it, made of the characters `inside`.

    `@` may occur in the password and in the query: the password ends where the rest looks like that of an address.
    """
    return re.compile(
        rf"""(?P<head>://(?P<user>[^\s:/?#"'<>]*):){_NO_PORT}(?P<password>[{inside}]+?)@(?=
        (?P<host>\[[^\]@]*\]|(?:(?![@/?:])[{inside}])*?) (?::\d*)? (?:/(?P<database>(?:(?![@?])[{inside}])*?))?
        (?:\?\w+=[{inside}]*?)? {end})""",
        re.X,
    )


ADDRESS = _address(r"^\s<>", rf"(?:[\s<>]|{_QUOTE_ENDS}|$)")
NAMED = re.compile(
    rf"""(?P<head>
        (?i:passw(?:or)?d|passphrase)["']?\s*=\s*
        | (?i:passw(?:or)?d|passphrase)["']\s*:\s*
        | (?:TOKEN|SECRET|ACCESS_KEY|_PWD)=
        | (?i:authorization)["']?\s*[:=]\s*b?["']?(?:Basic|Bearer)\s+
    )(?!\*\*\*)(?P<value>\\*"(?:[^"\\]|\\.)*"|\\*'(?:[^'\\]|\\.)*'|(?:[^\s&"'<>]|(?!{_QUOTE_ENDS})["'])+)""",
    re.X,
)
_ONE_ADDRESS = _address(r"\s\S", "$")
_WITH_SCHEME = re.compile(r"(?:--)?(?:\w+=)*[\w+.-]*://")
_WITHOUT_SCHEME = re.compile(r"(?:--)?(?:\w+=)?(?P<address>[^\s:/=@]+:[^\s/]\S*@[\w.-]+(?::\d+)?/\w*)")
_VARIABLES = ("PASSWORD", "PASSWD", "TOKEN", "SECRET", "ACCESS_KEY", "_PWD")  # their whole value is a password
_DELIMITERS = re.compile("[@/:?#]")  # programs disagree on a password that contains one of them

# Inside a longer word or number the text is no password; after an escape or a percent-encoded character it may be one.
_ESCAPES = (r"\\[nrt]", "%[0-9A-Fa-f]{2}", "%25[0-9A-Fa-f]{2}", r"\\x[0-9a-f]{2}", r"\\u[0-9a-f]{4}")
_BEGINS = rf"(?:(?<![A-Za-z0-9]){''.join(f'|(?<={escape})' for escape in _ESCAPES)})(?<!\d\.)"
_ENDS = r"(?![A-Za-z0-9])(?!\.\d)"


@dataclass(frozen=True)
class Place:
    """A password in an address, or a part of one, between a user and a host."""

    user: str
    text: str
    host: str


@dataclass(frozen=True)
class Carried:
    """What a text reveals: passwords, their places in addresses, and names that are public."""

    passwords: frozenset[str]
    places: frozenset[Place]
    names: frozenset[str]


@dataclass(frozen=True)
class Password:
    """A password: `pattern` finds it in any writing, after a `head` that is kept, in texts that contain the `sign`."""

    sign: str
    pattern: re.Pattern[str]


@lru_cache(maxsize=256)
def carried(text: str) -> Carried:
    """Return what a text reveals, from all addresses in it and from anything that it calls a password."""
    bare = _WITHOUT_SCHEME.fullmatch(text)
    found = _found(f"://{bare['address']}" if bare else text)
    passwords = {match["password"] for match in found}
    passwords |= {value for match in NAMED.finditer(text) for value in _said(match["value"])}
    passwords |= {value for address in text.split("://")[1:] for value in _asked(address)}
    places = {Place(match["user"], part, match["host"]) for match in found for part in _parts(match["password"])}
    names = {match[group] or "" for match in found for group in ("user", "host", "database")}
    return Carried(_meant(passwords), frozenset(places), _meant(names))


def _found(text: str) -> list[re.Match[str]]:
    """Return the addresses in a text; a text that is only an address may contain spaces."""
    if not _WITH_SCHEME.match(text):
        return list(ADDRESS.finditer(text))
    parts = (f"://{part}" for part in text.split("://")[1:])
    return [match for part in parts if (match := _ONE_ADDRESS.match(part))]


def _said(value: str) -> Iterator[str]:
    """Yield the meaning of a word or of a quoted text."""
    yield value
    if value[-1] in "'\"":
        yield re.sub(r"\\(.)", r"\1", value.lstrip("\\")[1:-1])


def _asked(address: str) -> Iterator[str]:
    """Yield the passwords in the query of an address, where quotes have no meaning."""
    for part in address.partition("?")[2].split("&"):
        name, _, value = part.partition("=")
        if "passw" in name.lower():
            yield from (value, value.replace("+", " "))


def _parts(password: str) -> Iterator[str]:
    """Yield a password, and what programs that split the address elsewhere take for it."""
    yield from (password, urllib.parse.unquote(password))
    yield from (part for part in _DELIMITERS.split(password) if part)


def _meant(texts: Iterable[str]) -> frozenset[str]:
    """Return the texts as typed, and decoded where they were percent-encoded."""
    return frozenset(kind(text) for text in texts if text for kind in (str, urllib.parse.unquote))


def known(typed: frozenset[str]) -> list[Password]:
    """Return all passwords of these texts and of the environment as it is now, the longest first."""
    environment = os.environ.items()
    alone = frozenset(value for name, value in environment if value and name.endswith(_VARIABLES))
    return _patterns(alone, typed.union(value for _, value in environment if "@" in value or "=" in value))


@lru_cache(maxsize=8)
def _patterns(alone: frozenset[str], texts: frozenset[str]) -> list[Password]:
    found = [carried(text) for text in texts]
    passwords = _meant(alone).union(*(one.passwords for one in found))
    names = frozenset[str]().union(*(one.names for one in found))
    places = frozenset[Place]().union(*(one.places for one in found))
    telling = {one for one in passwords if _is_telling(one)} - names
    return [
        *(_anywhere(one) for one in sorted(telling, key=len, reverse=True)),
        *(one for place in sorted(places, key=lambda place: -len(place.text)) for one in _in_place(place)),
    ]


def _is_telling(password: str) -> bool:
    """Tell whether a password is long enough not to occur in a text by chance."""
    return len(password) >= (6 if password.isalnum() else 4)


def _anywhere(password: str) -> Password:
    begins, ends = (_BEGINS if password[0].isalnum() else "", _ENDS if password[-1].isalnum() else "")
    return Password(_core(password), re.compile(f"(?P<head>){begins}{_written(password)}{ends}"))


def _in_place(place: Place) -> Iterator[Password]:
    """Yield patterns of a password after its user, before its host, and alone between quotes."""
    user, text, host = re.escape(place.user), _written(place.text), re.escape(place.host)
    begins, ends = r"(?:^|(?<=%2[Ff])|(?<=[\s'\"(/]))", r"(?=[\s'\"@/:]|%40|$)"
    yield Password(place.user, re.compile(rf"(?P<head>{begins}{user}(?::|%3[Aa])){text}{ends}"))
    if len(place.text) > 2:  # "could not resolve host 'PART'"
        yield Password(_core(place.text), re.compile(rf"(?P<head>['\"]){text}(?=['\"])"))
    yield Password(place.host, re.compile(rf"(?P<head>){text}(?=(?:@|%40){host})"))


def _core(password: str) -> str:
    return max(re.findall("[A-Za-z0-9]+", password), key=len, default="")


def _written(password: str) -> str:
    """Return a pattern of a password in any writing, including mixed ones."""
    return "".join(character if _is_plain(character) else _writings(character) for character in password)


def _is_plain(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _writings(character: str) -> str:
    """Return a pattern of a character: percent-encoded once or more, escaped for HTML, JSON, Python, SQL, CSV or a
    shell, or plain.
    """
    code, octets = ord(character), character.encode(errors="surrogatepass")
    pair = character.encode("utf-16-be", errors="surrogatepass")
    units = [pair[i : i + 2].hex() for i in range(0, len(pair), 2)]
    ways = [
        "".join(f"%(?:25)*{octet:02x}" for octet in octets),
        "".join(rf"\\+u{unit}" for unit in units),
        "".join(rf"\\+x{octet:02x}" for octet in octets),
        rf"\\+x{code:02x}",
        rf"\\+U{code:08x}",
        f"&#(?:{code}|x{code:x});",
    ]
    plain = [re.escape(html.escape(character)), *_QUOTED.get(character, ()), re.escape(character)]
    return f"(?:(?i:{'|'.join(ways)})|{'|'.join(plain)})"


_QUOTED = {"'": (r"""'"'"'""", "''", r"\\+'"), '"': ('""', r'\\+"'), "\\": (r"\\+",), " ": (r"\+",), "&": (r"\\+&",)}
