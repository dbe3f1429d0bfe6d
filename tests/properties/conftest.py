from hypothesis import settings

# The machines that run these tests are shared: one slow example proves nothing.
settings.register_profile("geoseg", deadline=None, derandomize=True)
settings.load_profile("geoseg")
