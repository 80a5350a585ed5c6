"""Where drawings come from: which packages, whose work, under which licence.

Nothing is in the table whose licence does not allow publishing what is trained on it, nor what
judges a training (`NEVER_TRAINED` of magiccolor_jax/data/art.py).
"""

from pathlib import Path
from typing import Literal, NamedTuple

from art_packages import Package

from magiccolor_jax.data.art import NEVER_TRAINED
from magiccolor_jax.data.pictures import CaseError


class Licence(NamedTuple):
    """What a drawing may be used under."""

    name: str
    """As in a library's `lic`: an SPDX identifier where there is one."""
    title: str
    url: str


PUBLIC_DOMAIN = Licence(
    "PD (CC public domain dedication)",
    "public domain (Creative Commons Public Domain Dedication)",
    "https://creativecommons.org/licenses/publicdomain/",
)
CC0 = Licence("CC0-1.0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/")
CC_BY = Licence("CC-BY-4.0", "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")
MIT = Licence("MIT", "MIT", "https://opensource.org/license/mit")
APACHE = Licence("Apache-2.0", "Apache 2.0", "https://www.apache.org/licenses/LICENSE-2.0")

PERMISSIVE = (PUBLIC_DOMAIN, CC0, MIT, APACHE)
"""Licences under which no name has to be given on every copy."""


class Source(NamedTuple):
    """One body of work."""

    name: str
    """As in a library's `src`."""
    kind: Literal["iconify", "dicebear", "openclipart"]
    """How its packages are read."""
    title: str
    author: str
    url: str
    """Where the work is published."""
    licence: Licence
    packages: tuple[Package, ...]
    """The drawings' package comes last."""
    proof: tuple[str, str]
    """A file of that package, and what it says there of the licence."""
    left_out: str = "(?!)"
    """Regular expression that is found in the names of subjects that are not used."""
    characters: int = 0
    """Number that DiceBear makes up."""
    expression: tuple[str, ...] = ()
    """DiceBear's parts in which a character's drawings differ."""


SIGNS = (
    r"flags?|keycap|digit|letters?|button|arrows?|squares?|circles?|circled|symbols?|signs?|marks?|"
    r"dash|asterisk|loop|infinity|copyright|registered|divide|minus|plus|multiply|om|yin|cross|"
    r"latin|star-of|trident|input|wheel-of|prohibited|no-entry|potable|warning|atm|water-closet|"
    r"children-crossing|restroom|mens-room|womens-room|baggage|customs|passport|left-luggage|"
    r"vibration|bars|mahjong|playing|joker|[a-z]+-oclock|[a-z]+-thirty"
)
PAPERS = (
    r"calendar|chart|clipboard|page|memo|bookmark|envelope|mail(box)?|newspaper|receipt|"
    r"dividers"
)
CROWDS = r"family|couple|kiss-man|kiss-woman|people|men|women|hands"
TONES = r"skin-tone|(?<!traffic)(?<!car)-(light|medium|dark)$"
HANDS = r"^(?!((wo)?man|person|face|smiling)-).*(hand|fingers?|fist|thumb)(s|-|$)"
EMOJI = rf"(^|-)({SIGNS}|{PAPERS}|{CROWDS})(-|$)|{TONES}|{HANDS}"
"""Words of names: signs, flags, papers, dials, crowds, hands; all skin tones but one."""

FXEMOJI = (
    r"arrow|symbol|square|(large|medium|white|black|red|blue)circle|circled|clock|sign$|button|"
    r"(check|cross|question|exclaimation|alternation)mark|latin|ideograph|regionalindicator|cross$|"
    r"ballot|pointing|cancellation|rays|fontsize|page|document|envelope|mailbox|memo|calendar|"
    r"chart|clipboard|newspaper|dividers|email|customs|passport|baggage|restroom|potable|vibration|"
    r"wavydash|playingcard|mahjong|trident|^emptynote|^hand(s|up)?$|fist|finger|thumb|hands?$|flag$|"
    r"^(family|couple|up|down|left|right|ten|gma|gpa)"
)
"""Of names without hyphens."""

OPENCLIPART = (
    r"^(computer|shapes|signs_and_symbols|special|logos|buttons)/|roadsigns|aiga|stickmen|cards|"
    r"card_figure|flags?[/_]|_flag|religion|weapons|pantyhose|/(no|two)_|/end_|_ahead$"
)
"""Of paths: signs, pictograms, interfaces, cards, religion, weapons."""


def _iconify(
    name: str, package: str, version: str, sha256: str, title: str, author: str, url: str,
    licence: Licence, left_out: str = EMOJI,
) -> Source:  # fmt: skip
    return Source(
        name,
        "iconify",
        title,
        author,
        url,
        licence,
        (Package("npm", f"@iconify-json/{package}", version, sha256),),
        ("package/info.json", f'"spdx": "{licence.name}"'),
        left_out,
    )


DICEBEAR = "9.4.3"
"""Version of all of its packages."""
DICEBEAR_CORE = Package(
    "npm",
    "@dicebear/core",
    DICEBEAR,
    "6ca7dae651c74ad547e548fbe7c41f49aaa377cf4617259277518389bf6b1a3d",
)


def _dicebear(
    style: str, sha256: str, title: str, author: str, url: str, licence: Licence,
    characters: int, *expression: str,
) -> Source:  # fmt: skip
    return Source(
        f"dicebear-{style}",
        "dicebear",
        title,
        author,
        url,
        licence,
        (DICEBEAR_CORE, Package("npm", f"@dicebear/{style}", DICEBEAR, sha256)),
        ("package/LICENSE", f"License: {licence.title} ("),
        characters=characters,
        expression=expression,
    )


_ALL = (
    _dicebear(
        "adventurer", "6edeac04f94ef6177c946918dce012e530200dfcc274b4f954239e33ecbe590c",
        "Adventurer", "Lisa Wischofsky",
        "https://www.figma.com/community/file/1184595184137881796", CC_BY,
        400, "eyes", "eyebrows", "mouth",
    ),
    _dicebear(
        "open-peeps", "65b664ec00dc69c068051461f2b5bd97c8335af676e36c284e906a3017c23d4f",
        "Open Peeps", "Pablo Stanley", "https://www.openpeeps.com/", CC0, 250, "face",
    ),
    _dicebear(
        "micah", "b948931f01e97147ce8cdcfc4dfdad5c029bcb1ad57420dc0b22bc0aeb1d3fa7",
        "Avatar Illustration System", "Micah Lanier",
        "https://www.figma.com/community/file/829741575478342595", CC_BY,
        150, "eyes", "eyebrows", "mouth",
    ),
    _dicebear(
        "big-ears", "02fc47ff824b783142e6c85c2ba182ff535a7b40f65bfddfafa2b4f8d86eef50",
        "Face Generator", "The Visual Team",
        "https://www.figma.com/community/file/986078800058673824", CC_BY,
        150, "eyes", "mouth", "cheek",
    ),
    _dicebear(
        "personas", "6f5b4765c4d54444ab0330c4a89da53636662de3b04118b827f005a31332d002",
        "Personas by Draftbit", "Draftbit", "https://personas.draftbit.com/", CC_BY,
        100, "eyes", "mouth",
    ),
    _dicebear(
        "big-smile", "8dbd7b96c9ceaf9dd7c280cdae4f0bb3e43ab2798b7bedbe355fbb3ce30e87bb",
        "Custom Avatar", "Ashley Seo",
        "https://www.figma.com/community/file/881358461963645496", CC_BY,
        200, "eyes", "mouth",
    ),
    _iconify(
        "noto", "noto", "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Noto Emoji", "Google Inc", "https://github.com/googlefonts/noto-emoji", APACHE,
    ),
    _iconify(
        "fluent-flat", "fluent-emoji-flat", "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "Fluent Emoji Flat", "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji", MIT,
    ),
    Source(
        "openclipart", "openclipart", "Open Clip Art Library 0.18",
        "the artists of openclipart.org, as each drawing's file names them",
        "https://openclipart.org/", PUBLIC_DOMAIN,
        (
            Package(
                "debian", "openclipart-svg", "1:0.18+dfsg-19",
                "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
            ),
        ),
        ("usr/share/doc/openclipart-svg/copyright", "creative commons Public Domain Dedication"),
        OPENCLIPART,
    ),
    _iconify(
        "fxemoji", "fxemoji", "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Firefox OS Emoji", "Mozilla", "https://github.com/mozilla/fxemoji", APACHE, FXEMOJI,
    ),
    _iconify(
        "twemoji", "twemoji", "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "Twitter Emoji (Twemoji)", "Twitter, Inc and other contributors",
        "https://github.com/jdecked/twemoji", CC_BY,
    ),
    _iconify(
        "emojitwo", "emojione", "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "Emoji One 2.3 (EmojiTwo)", "Emoji One",
        "https://github.com/EmojiTwo/emojitwo", CC_BY,
    ),
    _iconify(
        "fluent", "fluent-emoji", "1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "Fluent Emoji", "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji", MIT,
    ),
)  # fmt: skip

SOURCES = {source.name: source for source in _ALL}


def refuse_never_trained(name: str, packages: tuple[Package, ...] = ()) -> None:
    """Keeps out what judges a training, and what may not be trained on.

    Args:
        name: of a source, or a library's `src`.

    Raises:
        CaseError: the name, or a package's, is one of theirs.
    """
    for banned in NEVER_TRAINED:
        word = banned.removeprefix("dicebear-")
        for each in (name, *(package.name for package in packages)):
            if word in each.lower():
                raise CaseError(
                    Path(each),
                    "a library is trained on, and some sources never are",
                    expected=f"none of {', '.join(NEVER_TRAINED)}",
                    got=each,
                    fix=f"leave it out; the others are {', '.join(SOURCES)}",
                )


def choose(names: tuple[str, ...]) -> list[Source]:
    """Sources by name, in the order of the table; no name: all.

    Raises:
        CaseError: there is none of that name, or it is never trained on.
    """
    for name in names:
        refuse_never_trained(name)
        if name not in SOURCES:
            raise CaseError(
                Path(name),
                "a source is a row of scripts/art_sources.py",
                expected=f"one of {', '.join(SOURCES)}",
                got=name,
                fix="correct --sources",
            )
    chosen = [source for source in SOURCES.values() if not names or source.name in names]
    for source in chosen:
        refuse_never_trained(source.name, source.packages)
    return chosen
