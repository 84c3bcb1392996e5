"""What the description of a series says: its words, in the languages and by the names of vendors, and what they mean."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from functools import cache
from typing import NamedTuple


class Meaning(Enum):
    """What a word says of a scan."""

    T1 = auto()
    T2 = auto()
    PD = auto()
    FLAIR = auto()
    T2_STAR = auto()
    DUAL_ECHO = auto()
    GRADIENT_T1 = auto()  # sequences that are made T1-weighted
    REFORMAT = auto()  # 'mpr' is Siemens' short name of MP-RAGE, too
    GRADIENT = auto()
    INVERSION = auto()
    FAT_SATURATED = auto()
    DIXON = auto()
    AGENT = auto()  # the contrast agent, or that it was given
    AFTER = auto()
    BEFORE = auto()
    NATIVE = auto()
    WITHOUT = auto()
    WITH = auto()
    PERHAPS_AGENT = auto()  # 'T1 C' may be coronal
    FILLER = auto()


_WORDS = {
    Meaning.T1: "t1 t1w t1wi t1gew",
    Meaning.T2: "t2 t2w t2wi t2gew",
    Meaning.PD: "pd pdw pdwi dp proton protonen protons",
    Meaning.FLAIR: "flair darkfluid",
    Meaning.T2_STAR: "t2star t2s t2stern",
    Meaning.GRADIENT_T1: "mprage rage spgr fspgr bravo",
    Meaning.REFORMAT: "mpr",
    Meaning.GRADIENT: (
        "gre gradient gradienten gradiente ffe tffe tfe me2d me3d ci3d de3d fi2d fi3d medic merge hemo haemo heme hem fl2d "
        "fl3d fl flash fgre efgre mpgr vibe lava thrive ethrive fisp trufi truefisp fiesta ciss dess psif ssfp bssfp bffe btfe "
        "balanced grass"
    ),
    Meaning.INVERSION: "tirm tir ir psir irprep inversion",
    Meaning.FAT_SATURATED: (
        "fs fatsat fatsaturated fatsaturation fatsup fatsuppressed fatsuppression fat spair spir stir chess we water "
        "fettsat fett fettgesattigt fettsattigung fettsupprimiert fettunterdruckung grasa graisse grasso vetsat "
        "vetsuppressie vetonderdrukking aspir proset"
    ),
    Meaning.DIXON: "dixon mdixon ideal flex dxn",
    Meaning.AGENT: (
        "contrast contraste contrasto contrasted kontrast kontrastmittel kontrastmiddel kontrastverstarkt kontrastverst "
        "contrastmiddel contrastmedium contrastmittel contr kontr gd gad gado gadolinium gadolinio gadolinum gdc km cm "
        "mdc pdc civ gbca ce enhanced enhancement inj injected injection injecte injectee inject injektion iniezione "
        "inyeccion inyectado injectie injecao dtpa dota ferumoxytol feraheme"
    ),
    Meaning.AFTER: (
        "post pos postcon nach after apres despues tras dopo depois apos delayed delay late tardif tardive tardio venous "
        "venos arterial portal poi efter etter afterc"
    ),
    Meaning.BEFORE: "pre prae vor before avant antes prima voor fore innan",
    Meaning.NATIVE: "native nativ natif nativo nativa nativt unenhanced plain blanco nc",
    Meaning.WITHOUT: "without wo no non not sans ohne kein keine sin zonder senza sem uden utan uten bez none minus",
    Meaning.WITH: "with mit avec con met com med",
    Meaning.PERHAPS_AGENT: "c iv pc pi unclear",
    Meaning.FILLER: (
        "w wi wt weighted gewichtet ponderado pondere ponderee pesata ax axi axial axiale axials tra trans transv "
        "transversal cor coronal coronale koronar sag sagital sagittal obl oblique iso se tse fse ftse frfse sefse tfl "
        "space spc cube vista brain head neck spine mm ns ms propeller blade multivane mvxd hires hr fast turbo spin echo "
        "echos haste ssfse thin thick whole isotropic dark fluid de of des du la le el del di der dem the any und and et "
        "en y ein eine agent agente media medium mittel gabe d op"
    ),
}
_AGENT_NAMES = (  # beside those that begin with gado
    "dotarem",
    "magnevist",
    "prohance",
    "multihance",
    "clariscan",
    "omniscan",
    "primovist",
    "eovist",
    "ablavar",
    "vasovist",
    "optimark",
    "elucirem",
    "vueway",
    "artirem",
    "pixxoscan",
    "dotagita",
    "cyclolux",
    "magnegita",
)
_PHRASES = {
    ("mp", "rage"): Meaning.GRADIENT_T1,
    ("turbo", "flash"): Meaning.GRADIENT,
    ("dark", "fluid"): Meaning.FLAIR,
    ("da", "fl"): Meaning.FLAIR,
    ("fluid", "attenuated"): Meaning.FLAIR,
    ("t2", "star"): Meaning.T2_STAR,
    ("t2w", "star"): Meaning.T2_STAR,
    **{(first, second): Meaning.DUAL_ECHO for first in ("double", "dual") for second in ("tse", "fse", "echo", "se")},
    ("doubletse",): Meaning.DUAL_ECHO,
    ("dualecho",): Meaning.DUAL_ECHO,
    **{
        (when, what): Meaning.FILLER
        for when in ("pre", "post")
        for what in (
            *("op", "operative", "operativ", "treatment", "therapy", "tx", "rt", "xrt", "surgery", "biopsy", "resection"),
            *("chemo", "radiation", "processing", "processed", "proc", "stealth", "scan"),
        )
    },
    ("preop",): Meaning.FILLER,
    ("postop",): Meaning.FILLER,
}
_OTHER_KINDS = {  # images that are none of the contrasts, whatever else their description says
    "a localiser": (
        "loc localizer localiser localizador localisateur lokalizer lokalisator scout survey topogram planscan smartbrain "
        "aascout aahead plane pilot"
    ),
    "a diffusion image": (
        "dwi dti diff diffusion diffusie diffusione difusion adc adcs dadc eadc trace tracew tensor fa colfa ivim dki "
        "noddi dwibs b0 b500 b800 b1000 apparent"
    ),
    "a perfusion or dynamic image": (
        "perf perfusion perfusie dsc dce asl pcasl pasl cbf cbv rcbf rcbv mtt ttp tmax ktrans pwi dynamic dyn dynamisch "
        "dynamique"
    ),
    "a susceptibility image": "swi swip swan susc susceptibility suszeptibilitat qsm venobold esw",
    "an angiogram": (
        "tof mra mrv angio angiography angiographie angiografie cemra pcmra mrangio venogram venographie qiss trance inhance"
    ),
    "a projection or reformat": (
        "mip mips minip mnip reformat reformats reformatted rfmt projection projections collection collage vrt curved"
    ),
    "a map": (
        "map maps myomaps mapping mapit t1map t2map r2 r2s r2star relax relaxometry relaxometrie molli shmolli rho t1rho t2rho "
        "karte mapa carte cartographie quant quantitative"
    ),
    "a part of an MP2RAGE": "mp2rage inv1 inv2 inv uni uniden",
    "a phase, real or imaginary image": (
        "phase phasen fase pha phs inphase outphase opphase opp opposed outofphase real realteil imag imaginary velocity "
        "venc cine"
    ),
    "a subtraction": "sub subs subtraction subtract subtracted subtr subtraktion subtracao sustraccion soustraction",
    "a synthetic image": "syn synth synthetic symri magic",
    "an echo-planar image": "epi ep2d bold fmri rest resting task",
    "a field map or calibration": "fieldmap field fmap b1 shim shimming cal calib calibration calibracion",
    "a magnetisation-transfer image": "mt mtc mtr mton mtoff ihmt cest apt",
    "spectroscopy": "mrs svs csi press spectroscopy spectro spektroskopie",
    "a double inversion recovery": "dir",
    "a derived image": "derived screenshot screensave report ratio average",
}
_MEANINGS: dict[str, Meaning | str] = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
_MEANINGS |= {word: kind for kind, words in _OTHER_KINDS.items() for word in words.split()}
_ANCHORS = {Meaning.T1, Meaning.T2, Meaning.PD, Meaning.FLAIR, Meaning.T2_STAR, Meaning.GRADIENT_T1}
_EMBEDDED = ("kontrastmittel", "contrast", "kontrast", "gadolin", "gado", "injekt", "inject", "mprage", "flair", "darkfluid")
_SPELLINGS = (  # pattern and what stands for it; underscores are spaces by then
    (r"\bsub-\w+|\bses-\w+|\brun-\w+", " "),  # entities of BIDS
    (r"\.nii(\.gz)?$", " "),
    (r"\bce-gad", " gad "),
    (r"(?<![a-z0-9])c\s?-\s?spine", " spine "),
    (r"\d+(\.\d+)?\s?cm\b", " "),  # of length
    (r"\bfa\s?=?\s?\d+", " "),  # flip angle
    (r"\bw(?=\W*(w\s?/|wo\b|without))", " with "),
    (r"\bw\s?/\s?o\b|\bw-o\b|\bw\s?/\s?out\b", " without "),
    (r"\bw\s?/(?=\s?[a-z(+]|\s*$)|\bc/(?=\s?[a-z])", " with "),
    (r"\bs/(?=\s?[a-z])", " without "),
    (r"\bwith\s+c(?![a-z0-9])", " afterc "),
    (r"\bwithout\s+c(?![a-z0-9])", " without contrast "),
    (r"\b([a-z])\.\s?([a-z])\b\.?", r" \1\2 "),
    (r"((?<![a-z0-9])|(?<=t1))c\s?\+(?![a-z])|\+\s?c(?![a-z])", " gdc "),
    (r"(?<![a-z0-9])(c|km|gd|gad|gado|contrast|kontrast)\s?-(?![a-z0-9])", " without contrast "),
    (r"(?:^|(?<=[\s(]))-\s?c(?![a-z0-9])", " without contrast "),
    (r"(?:^|(?<=[\s(]))-(?=(km|gd|gad|gado|contrast|kontrast)(?![a-z]))", " nativ "),
    (r"(t[12]w?)\s?\+\s?(?=$|\))", r" \1 unclear "),
    (r"(?:^|\s)\(?\+\)?\s?$", " unclear "),
    (r"(t2w?)\s?\*", " t2star "),
)


class Words(NamedTuple):
    """What a description says: its meanings; contrast agent as 'before', 'after', 'unclear' or ''; another kind of image."""

    meanings: frozenset[Meaning]
    agent: str = ""
    other_kind: str = ""


def read(description: str) -> Words:
    """The meanings of a description's words; words that are not known mean nothing."""
    tokens = list(_tokens(description))
    meanings = list(_meanings(tokens))
    kinds = [meaning for meaning in meanings if isinstance(meaning, str)]
    known, agent = _negated([meaning for meaning in meanings if isinstance(meaning, Meaning)])
    if Meaning.DIXON in known and "w" in tokens:  # the water image
        known.append(Meaning.FAT_SATURATED)
    return Words(frozenset(known), agent, kinds[0] if kinds else "")


def _tokens(description: str) -> Iterator[str]:
    text = "".join(letter for letter in unicodedata.normalize("NFKD", description) if not unicodedata.combining(letter))
    text = text.casefold().replace("_", " ")
    for pattern, spelling in _SPELLINGS:
        text = re.sub(pattern, spelling, text)
    for chunk in re.findall(r"[a-z0-9]+|\+", text):
        yield from _segments(chunk)


@cache
def _segments(chunk: str) -> tuple[str, ...]:
    """The words that are written together in a chunk, as 'axt1post'; the chunk itself where it is not made of known ones."""
    if chunk in _MEANINGS or chunk == "+" or (chunk,) in _PHRASES:
        return (chunk,)
    if chunk.startswith(("gado", "gada")) or any(name in chunk for name in _AGENT_NAMES):
        return ("gado",)
    parts = _split(chunk)
    if parts and (len(parts) == 1 or any(_MEANINGS.get(part) in _ANCHORS or len(part) > 3 for part in parts)):
        return parts
    for word in _EMBEDDED:
        before, found, after = chunk.partition(word)
        if found:
            return (*(_segments(before) if before else ()), *_segments(word), *(_segments(after) if after else ()))
    weighting = re.fullmatch(r"[a-z]{0,2}?(t[12])w?(?!\d)(.*)", chunk)  # Philips writes sT2W, eT1W
    return (weighting[1], *(_segments(weighting[2]) if weighting[2] else ())) if weighting else (chunk,)


@cache
def _split(chunk: str) -> tuple[str, ...]:
    """A chunk as the fewest known words and numbers; empty where it is not made of them."""
    best: tuple[str, ...] = ()
    for end in range(len(chunk), 0, -1):
        word, rest = chunk[:end], chunk[end:]
        if not (word in _MEANINGS or word in ("2d", "3d") or word.isdecimal()) or word == "t2s":  # of t2stir, t2space
            continue
        if word[-1].isdecimal() and rest[:1].isdecimal() and not (word[0] == "t" and rest[:2] in ("2d", "3d")):
            continue
        others = _split(rest) if rest else ()
        if (others or not rest) and (not best or len(others) + 1 < len(best)):
            best = (word, *others)
    return best


def _meanings(tokens: Sequence[str]) -> Iterator[Meaning | str]:
    place = 0
    while place < len(tokens):
        length = next((n for n in (2, 1) if tuple(tokens[place : place + n]) in _PHRASES), 0)
        if length:
            yield _PHRASES[tuple(tokens[place : place + length])]
        elif tokens[place] in _MEANINGS:
            yield _MEANINGS[tokens[place]]
        elif tokens[place] == "+":
            yield Meaning.FILLER
        place += length or 1


def _negated(meanings: Sequence[Meaning]) -> tuple[list[Meaning], str]:
    """The meanings that hold, after 'without' and the like, and what they say of contrast agent."""
    holding: list[Meaning] = []
    before = after = False
    negation: Meaning | None = None  # of the words that follow
    for place, meaning in enumerate(meanings):
        last = place == len(meanings) - 1
        if meaning in (Meaning.WITHOUT, Meaning.BEFORE) and holding[-1:] == [Meaning.AGENT] and last:  # 'KM vor'
            holding.pop()
            before = True
        elif meaning in (Meaning.WITHOUT, Meaning.BEFORE):
            negation = meaning
            before |= meaning is Meaning.BEFORE
        elif negation and meaning in (Meaning.AGENT, Meaning.PERHAPS_AGENT):
            before, after = True, after or Meaning.WITH in meanings  # 'with and without contrast'
        elif meaning in (Meaning.FILLER, Meaning.WITH) or (negation is Meaning.WITHOUT and meaning is Meaning.FAT_SATURATED):
            continue
        else:
            negation = None
            holding.append(meaning)
            before |= meaning is Meaning.NATIVE
    after = after or Meaning.AFTER in holding or Meaning.AGENT in holding
    if after or before:
        return holding, "unclear" if after and before else "after" if after else "before"
    with_what = {Meaning.WITH, Meaning.WITHOUT} <= {*meanings} or [*meanings[-1:]] == [Meaning.WITH]  # 'w & w/o', 'T1 with'
    return holding, "unclear" if with_what or Meaning.PERHAPS_AGENT in holding else ""
