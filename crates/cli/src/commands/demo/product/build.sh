#!/bin/sh
# Builds the service: sh build.sh OUTPUT
set -eu
cc -O1 -Wall -o "$1" src/shop.c src/prices.c
