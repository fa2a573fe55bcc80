"""What a person is told when a round of mining is done."""

from detkit.console import print_table, say, warn
from detkit.mining.round import MANIFEST, MinedRound, MiningRound


def show_round(told: MiningRound, mined: MinedRound) -> None:
    """Say what became of the false positives, and where the negatives are."""
    summary = mined.summary
    decisions, least = summary["decisions"], f"{summary['threshold']:.3g}"
    print_table(f"{summary['images']} images", ("kind", "detections"), summary["detections"].items())
    rows = [*decisions.items(), ("kept for each image", summary["acceptance_ratio"])]
    print_table(f"On background, threshold {least}", ("decision", "false positives"), rows)
    if told.source.pool.state == "unverified" and decisions.get("quarantined"):
        say(f"{decisions['quarantined']} for a person to look at: {told.quarantine}")
    if not summary["candidates"]:
        found = f"nothing on background scores {least} or more in {summary['images']} images"
        warn(f"no new crop: {found}; lower --threshold, or mine other images")
    elif not summary["kept"]:
        most, manifest = max(decisions, key=decisions.get), told.folder / MANIFEST
        warn(f"no new crop: the false positives are, most of them: {most} (each in {manifest})")
    say(f"{len(mined.negatives.crops)} negatives: {told.coco}")
