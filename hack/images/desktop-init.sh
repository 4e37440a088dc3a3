#!/bin/sh
# A small desktop: the session lasts as long as it does.
exec icewm-session
