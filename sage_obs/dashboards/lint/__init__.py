"""Rules about boards, applied to the JSON that ships or to a file of the user's."""
