#!/bin/sh
# A terminal on the new desktop.
exec xterm -geometry 100x30+40+40 -title "${0##*/} $*"
