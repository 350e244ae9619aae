"""Are results on disk those that the recorded parameters, code, data and environment produce?"""
