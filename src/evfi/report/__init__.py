"""Shared parts of the self-contained HTML reports.

Markup that cannot be confused with text, the page around it, tables, small plots, and pictures inside the page. What a
report says stands where its facts are made.
"""
