"""Pure work on masks (numpy alone), for any labeling tool: objects, outlines, picking by points and boxes."""
