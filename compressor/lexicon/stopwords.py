"""Words that no attack and no training replaces: TextFooler's list."""

from __future__ import annotations

from pathlib import Path

STOPWORDS = Path(__file__).with_name("stopwords.txt")
