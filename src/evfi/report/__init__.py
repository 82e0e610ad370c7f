"""What reports share: one HTML file that needs nothing else, neither network nor other files.

Markup that cannot be confused with text, the page around it, tables, small plots, and pictures inside the page. What a
report says stands where its facts are made.
"""
