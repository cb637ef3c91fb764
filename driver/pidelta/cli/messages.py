"""Warnings and notes on the screen, a line each."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape


def show_warning(console: Console, text: str) -> None:
    """Print what may be wrong."""
    console.print(f"[yellow]warning: {escape(text)}[/yellow]", soft_wrap=True)


def show_note(console: Console, text: str) -> None:
    """Print what one may want to know."""
    console.print(f"[yellow]note: {escape(text)}[/yellow]", soft_wrap=True)
