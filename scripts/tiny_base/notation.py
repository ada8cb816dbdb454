"""YAML text as the corpus and the Kubernetes data write it: two spaces, lists not indented."""


def yaml_lines(value: dict, indent: int = 0) -> list:
    """The lines of a mapping; text that YAML would read as something else is quoted."""
    pad = "  " * indent
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{pad}{key}:"] + yaml_lines(item, indent + 1)
        elif isinstance(item, list):
            lines.append(f"{pad}{key}:")
            for element in item:
                if not isinstance(element, dict):
                    lines.append(f"{pad}- {element}")
                    continue
                inner = yaml_lines(element, indent + 1)
                lines += [pad + "- " + inner[0].lstrip()] + inner[1:]
        else:
            text = f'"{item}"' if isinstance(item, str) and "*" in item else item
            lines.append(f"{pad}{key}: {text}")
    return lines
