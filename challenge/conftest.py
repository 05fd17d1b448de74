"""Every Python block of a chapter is a test; the blocks of one chapter share their names."""

from sybil import Sybil
from sybil.parsers import markdown, rest

pytest_collect_file = Sybil([markdown.PythonCodeBlockParser(), rest.DocTestParser()], pattern="chapters/*.md").pytest()
