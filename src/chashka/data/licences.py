"""Which licences a training picture may carry, and how what a package says of itself is read.

The list is closed: share-alike, non-commercial, no-derivatives and copyleft licences are refused, and so is everything
that says nothing. ``CC-PDDC`` is the SPDX name of the Creative Commons public-domain dedication of 2004.
"""

from __future__ import annotations

ALLOWED: dict[str, str] = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-PDDC": "https://creativecommons.org/licenses/publicdomain/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "ISC": "https://opensource.org/license/isc-license-txt",
    "MIT": "https://opensource.org/license/mit",
    "Unicode-3.0": "https://www.unicode.org/license.txt",
}
"""SPDX identifier → where its text is."""

NEEDS_ATTRIBUTION = frozenset({"Apache-2.0", "CC-BY-3.0", "CC-BY-4.0", "ISC", "MIT", "Unicode-3.0"})

# What item-wise metadata (RDF in SVG files) names by address.
_BY_ADDRESS = {
    "web.resource.org/cc/publicdomain": "CC-PDDC",
    "creativecommons.org/licenses/publicdomain": "CC-PDDC",
    "creativecommons.org/publicdomain/zero/1.0": "CC0-1.0",
    "creativecommons.org/licenses/by/3.0": "CC-BY-3.0",
    "creativecommons.org/licenses/by/4.0": "CC-BY-4.0",
}


def spdx_of_address(address: str) -> str | None:
    """The allowed SPDX identifier that a licence address stands for; None for every other address and for no address."""
    bare = address.strip().lower().removeprefix("https://").removeprefix("http://").removeprefix("www.").rstrip("/")
    return _BY_ADDRESS.get(bare)
