"""The audit of captured updates: what somebody else's client gave away, and how sure that is.

`plan` chooses the attacks and how long each may take, `explanation` measures how well rebuilt images explain an update,
`assessment` says what may be concluded, with the true images or without, `tables` holds the numbers of that, and `page`
shows it to a person.
"""
