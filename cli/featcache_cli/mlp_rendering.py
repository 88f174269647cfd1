"""How an MLP head looks in a terminal: beside the linear one, and whether it pays."""

from typing import Any

from featcache_cli.rendering import line, percent, printable, show, table


def render_mlp(result: Any) -> None:
    """The two heads of a probe, if one is an MLP; 80 columns are enough."""
    if result.mlp is None:
        return
    found, difference = result.mlp, result.mlp.difference
    heads = table(
        *("head", ">accuracy", ">95% interval", ">train", ">per class"),
        *(">log-loss", ">numbers", ">seconds"),
        title="\nby head, on the same held-out pictures",
    )
    for name, score in (("linear", found.linear), ("mlp", found.score)):
        heads.add_row(
            name,
            percent(score.accuracy),
            f"{100 * score.ci95[0]:.1f} to {100 * score.ci95[1]:.1f}",
            percent(score.train_accuracy),
            percent(score.mean_per_class),
            "" if score.log_loss is None else f"{score.log_loss:.4f}",
            str(score.params),
            f"{score.seconds:.1f}",
        )
    show(heads)
    line(
        f"mlp: {found.hidden} hidden units, dropout {found.dropout:g}, rate {found.rate:.2g}, "
        f"{found.epochs} epochs"
    )
    line(
        f"against the linear head: [bold]{100 * difference.difference:+.1f} points[/bold] (95% "
        f"interval {100 * difference.ci95[0]:+.1f} to {100 * difference.ci95[1]:+.1f}, "
        f"p = {difference.p_value:.2g})"
    )
    line(f"how: {printable(difference.method)}")
    line(f"\n[bold]advice[/bold]: {printable(result.advice)}")
