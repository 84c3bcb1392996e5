"""Ways to write what descriptions of series say, as patterns, and the words of the vocabulary that stand for them."""

SPELLINGS = (  # pattern and what stands for it; underscores are spaces, and dashes of all lengths '-', by then
    (r"\bsub-\w+|\bses-\w+|\brun-\w+", " "),  # entities of BIDS
    (r"\.nii(\.gz)?$", " "),
    (r"\bf\s?/\s?u\b|\bfollow[\s-]?up\b", " followup "),
    (r"\b0[.,](?=\d)", " "),  # of a dose
    (r"±|\+\s?/?\s?-(?![a-z])|-\s?/\s?\+|\+\s?/\s?-", " unclear "),
    (r"\bce-gad", " gad "),
    (r"(?<![a-z0-9+-])(?<!\+\s)c[\s-]{0,3}spine", " spine "),
    (r"(?<![a-z0-9.])\d+(\.\d+)?\s?cm\b", " "),  # of length
    (r"\bfa\s?=?\s?\d+", " "),  # flip angle
    (r"\bw(?=\W*(w\s?/|wo\b|without))", " with "),
    (r"\bw\s?/\s?o\b|\bw-o\b|\bw\s?/\s?out\b", " without "),
    (r"\bw\s?/(?=\s?[a-z(+]|\s*$)|\bc/(?=\s?[a-z])", " with "),
    (r"\bs/(?=\s?[a-z])", " without "),
    (r"\bwith\s+c(?![a-z0-9])", " afterc "),
    (r"\bwithout\s+c(?![a-z0-9])", " without contrast "),
    (r"\b([a-z])\.([a-z])\.([a-z])\b\.?", r" \1\2\3 "),
    (r"\b([a-z])\.\s?([a-z])\b\.?", r" \1\2 "),
    *(
        (rf"(?:(?<![a-z0-9])|(?<=t1)|(?<=t1w)){letter}\.?[\s-]?(?={agent})", f" {word} ")
        for letters, agent in (
            ({"o": "ohne", "v": "vor", "m": "mit", "n": "nach"}, r"km(?![a-z])|kontrast"),
            ({"o": "ohne", "v": "vor", "m": "mit", "s": "sans"}, r"gd(?![a-z])|gado|gad(?![a-z])|mdc(?![a-z])"),
        )
        for letter, word in letters.items()
    ),
    (r"((?<![a-z0-9])|(?<=t1))c\s?\+(?![a-z])|\+\s?c(?![a-z])", " gdc "),
    (r"(?<![a-z0-9])c\s?-(?![a-z0-9])|(?:^|(?<=[\s(]))-c(?![a-z0-9])", " without contrast "),
    (r"\(\s?-\s?\)|(?<=[a-z])-(?=[\s)]|$)|(?<=[\s(])-(?=\s*$|\))", " negative "),
    (r"(?:^|(?<=[\s(]))-\s?(?=[a-z])", " dash "),
    (r"(?<![a-z0-9.])\d+\s?(?:['’′´]{1,2}|(?:s|sec|secs|sek|min|mins|h)(?![a-z0-9/]))", " timed "),  # since the injection
    (r"\+(?=\s?(\d+|[a-z])(?![a-z0-9]))|(?<=[^a-z][a-z])\+|(?<=\+)\+", " plus "),
    (r"(?<=[a-z0-9])\s?\(?\+\)?(?=\s*$|\))|(?<=[a-z0-9])\+(?=\s)|(?:^|\s)\(?\+\)?\s?$", " plus "),
    (r"\bi\s?/\s?o\b", " io "),
    (r"\b\d+\s?(echos?|echoes|te)\b|\bte(?:\s*\d+(?!\d)){2,}|\becho\s?\d+\b", " me "),
    (r"(t2w?)[\s-]?prep(ared)?\b", r" \1 t2prep "),
    (r"(t2w?)\s?['’′´`](?!\w)", r" \1 t2map "),
    (r"(t2w?)\s?\*", " t2star "),
    (r"flair\s?\*", " flair fused "),
)
