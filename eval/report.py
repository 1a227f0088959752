def write_report(folder, console): pass
