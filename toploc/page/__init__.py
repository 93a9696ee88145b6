"""What pages about answers share: the audit's, a verifier's and the gateway's.

`shown.py` says what of an answer is shown, `document.py` puts files together as one page, `live.py` has what changes
sent to browsers. `parts.*` are what every page looks like, `live.*` what those of a server do besides.
"""
