/* The control service as a program; see its man page. Returns the exit status. */
#pragma once

int control_main(int argc, char **argv);
