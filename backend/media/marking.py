# SPDX-License-Identifier: GPL-3.0-or-later
"""What every picture and clip that is made here says of itself: that it is AI-generated.

The word for machines is IPTC's DigitalSourceType (Photo Metadata Standard 2023.1; NewsCodes
digitalsourcetype/trainedAlgorithmicMedia): in a PNG as XMP, in the iTXt chunk that ISO 16684-3 names; in an
MP4 in the description, where players show it. Pixels are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SENTENCE = "AI-generated: a portrait that was animated with LivePortrait for Blender."

_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""

PICTURE_MARK: Mapping[str, str] = {"Comment": SENTENCE, "XML:com.adobe.xmp": _XMP}  # for encode_png
CLIP_MARK: Mapping[str, str] = {"description": f"{SENTENCE} DigitalSourceType: {SOURCE_TYPE}"}
