"""Every Python block of a chapter is a test; the blocks of one chapter share their names."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil([PythonCodeBlockParser()], pattern="chapters/*.md").pytest()
