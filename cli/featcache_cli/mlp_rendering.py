"""How an MLP head looks in a terminal: beside the linear one, and whether it pays."""

from typing import Any

from featcache.rounding import digits, percent
from featcache_cli.rendering import ends, gain, line, loss, printable, show, table


def render_mlp(result: Any) -> None:
    """The two heads of a probe, if one is an MLP; 80 columns are enough."""
    if result.mlp is None:
        return
    found, difference = result.mlp, result.mlp.difference
    decimals = digits(found.linear.ci95, found.score.ci95)
    heads = table(
        *("head", ">accuracy", ">95% interval", ">train", ">per class"),
        *(">log-loss", ">numbers", ">seconds"),
        title="\nby head, on the same held-out pictures",
    )
    for name, score in (("linear", found.linear), ("mlp", found.score)):
        heads.add_row(
            name,
            percent(score.accuracy, decimals),
            ends(score.ci95, decimals),
            percent(score.train_accuracy, decimals),
            percent(score.mean_per_class, decimals),
            loss(score.log_loss, decimals),
            str(score.params),
            f"{score.seconds:.1f}",
        )
    show(heads)
    line(
        f"mlp: {found.hidden} hidden units, dropout {found.dropout:g}, rate {found.rate:.2g}, "
        f"{found.epochs} epochs"
    )
    line(f"against the linear head: {gain(difference)}")
    line(f"how: {printable(difference.method)}")
    line(f"\n[bold]advice[/bold]: {printable(result.advice)}")
