//! A store in a directory, laid out as restic lays it out.
