"""The rules of the models, and the cases of `model/check.py` in which one of them is left out."""

from __future__ import annotations

RULES: dict[str, tuple[str, ...]] = {
    "H1": ("mistake cheap split", "remembered identity only fo+wipe", "digest only fo"),
    "H2": ("mistake putfirst fo+wipe",),
    "H3": ("mistake norecheck fo+wipe",),
    "H4": (),
    "H5": (
        "no fence on ack fo",
        "fence without healing check fo",
        "mistake ackfirst fo",
        "mistake memack split+late",
        "ack in unsettled history split",
    ),
    "H6": ("without registry split",),
    "H7": ("without settle time wipe+late",),
    "H8": ("without join rule split+late", "mistake joinack split+late", "mistake readmit split"),
    "H9": ("mistake leavefirst fo+leave",),
    "H10": ("mistake strikeblind fo+wipe",),
    "H11": ("forced strike memory split", "forced strike memory fo+crash", "waits for the dead for ever fo+crash"),
    "H12": ("mistake nowrite fo+crash", "mistake connected split"),
    "H13": ("mistake newest", "mistake unstreamed", "mistake numberonly"),
    "D1": ("mistake arrival", "mistake nononce"),
    "D2": ("mistake early",),
    "D3": ("mistake nowait",),
    "D4": ("mistake aside, position not checked", "mistake aside"),
    "D5": ("mistake cursor",),
    "D6": ("mistake replace keepfresh", "snapshot replaces the view"),
    "D7": ("mistake skip",),
    "D8": ("mistake scanfirst",),
    "D9": ("mistake lateflow", "mistake lateflow nogap"),
    "D10": ("number only, new history never", "number only, new history some"),
    "D11": ("order LookLeaseClock", "order LeaseClockLook"),
}
