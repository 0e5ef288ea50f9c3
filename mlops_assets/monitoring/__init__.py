"""Pure monitoring: logged answers and late labels in; drift, performance, decisions and reasons out."""
