"""Checks the manifests of a `packaging` folder. Usage: check.py ROOT, with the packages of pins.txt in PYTHONPATH.

1. Each Kubernetes object fits its schema, strictly: no field is unknown. So does what the io_uring kustomization makes of it.
2. What names another thing names one that is there: selectors, ports, volumes, the headless service, files of kustomizations, the seccomp profile.
3. The compose file is read by a reader of the specification that refuses what it does not know.
4. Every MILLRACE_ variable, here and in the container's recipe, is a setting.
5. Each of these is seen to fail on a manifest that is broken for it.

Knows nothing of what the manifests are for.
"""

import copy
import pathlib
import re
import sys

import compose_spec
import kubernetes_validate
import yaml

KUBERNETES = "1.37"


class Failed(Exception):
    """What is wrong, and where."""


def need(condition, text):
    if not condition:
        raise Failed(text)


def merged(base, patch):
    """A strategic merge of a patch that holds no lists."""
    if not isinstance(patch, dict) or not isinstance(base, dict):
        return patch
    return {key: merged(base[key], patch[key]) if key in base and key in patch else patch.get(key, base.get(key))
            for key in {**base, **patch}}


def kustomized(folder):
    """The objects that a folder's kustomization.yaml names, with its patches."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    unknown = set(said) - {"apiVersion", "kind", "resources", "patches"}
    need(not unknown, f"{folder}/kustomization.yaml: this check does not know {sorted(unknown)}")
    objects = []
    for name in said["resources"]:
        path = folder / name
        need(path.exists(), f"{folder}/kustomization.yaml: there is no {name}")
        objects += kustomized(path.resolve()) if path.is_dir() else list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for entry in said.get("patches", []):
        patch = yaml.safe_load((folder / entry["path"]).read_text(encoding="utf-8"))
        found = [at for at, item in enumerate(objects) if (item["kind"], item["metadata"]["name"]) == (patch["kind"], patch["metadata"]["name"])]
        need(len(found) == 1, f"{folder}/{entry['path']}: {len(found)} objects are patched by it, not one")
        objects[found[0]] = merged(objects[found[0]], patch)
    return objects


def check_schemas(objects):
    for item in objects:
        try:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Failed(f"{item.get('kind')} {item['metadata'].get('name')}: {'.'.join(map(str, error.path))}: {error.message}") from None


def check_references(objects):
    """What names another thing of the same objects."""
    by_kind = {}
    for item in objects:
        by_kind.setdefault(item["kind"], []).append(item)
    need(set(by_kind) == {"Service", "StatefulSet", "PodDisruptionBudget"}, f"unexpected kinds: {sorted(by_kind)}")
    services = {item["metadata"]["name"]: item["spec"] for item in by_kind["Service"]}
    for item in by_kind["StatefulSet"]:
        spec = item["spec"]
        pod = spec["template"]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        selectors = {"the StatefulSet": spec["selector"]["matchLabels"]}
        selectors.update({f"Service {name}": service["selector"] for name, service in services.items()})
        selectors.update({"the PodDisruptionBudget": budget["spec"]["selector"]["matchLabels"] for budget in by_kind["PodDisruptionBudget"]})
        for name, selector in selectors.items():
            need(selector.items() <= labels.items(), f"{name} selects {selector}; the pods have {labels}")
        need(services.get(spec["serviceName"], {}).get("clusterIP") == "None", f"{spec['serviceName']} is no headless Service")
        container = pod["containers"][0]
        ports = {port["name"] for port in container["ports"]}
        for name, service in services.items():
            for port in service["ports"]:
                need(port["targetPort"] in ports, f"Service {name} leads to port {port['targetPort']}, which the pods do not have")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            need(container[probe]["httpGet"]["port"] in ports, f"{probe} asks a port that the pods do not have")
        volumes = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
        for mount in container["volumeMounts"]:
            need(mount["name"] in volumes, f"there is no volume {mount['name']}")
        advertised = next(entry["value"] for entry in container["env"] if entry["name"] == "MILLRACE_ADVERTISED_LISTENERS")
        need(f"$(POD_NAME).{spec['serviceName']}.$(POD_NAMESPACE)." in advertised, f"{advertised} is not the pod's own name")


def check_compose(text, folder):
    try:
        compose_spec.PyCompose.from_yaml(text).validate()
    except ValueError as error:
        raise Failed(f"compose.yaml: {error}") from None
    for option in yaml.safe_load(text)["services"]["millrace"]["security_opt"]:
        if option.startswith("seccomp="):
            need((folder / option.removeprefix("seccomp=")).is_file(), f"compose.yaml: there is no file {option}")


def check_settings(name, text, settings):
    found = set(re.findall(r"\bMILLRACE_[A-Z_]+\b", text))
    need(found, f"{name} sets nothing")
    for variable in sorted(found):
        need(variable in settings, f"{name}: {variable} is no setting")


def check_fails(what, function, *arguments):
    """The check of the check."""
    try:
        function(*arguments)
    except Failed as failure:
        print(f"  found: {failure}")
        return
    raise Failed(f"not found: {what}")


def changed(objects, kind, path, value):
    """A copy with one value of one object changed."""
    copied = copy.deepcopy(objects)
    place = next(item for item in copied if item["kind"] == kind)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copied


def check_planted(objects, compose, folder, settings):
    pod = ["spec", "template", "spec"]
    check_fails("an unknown field", check_schemas, changed(objects, "StatefulSet", pod + ["terminationGracePeriod"], 5))
    check_fails("a wrong type", check_schemas, changed(objects, "Service", ["spec", "ports", 0, "port"], "9092a"))
    check_fails("a selector", check_references, changed(objects, "PodDisruptionBudget", ["spec", "selector", "matchLabels"], {"app": "x"}))
    check_fails("a port", check_references, changed(objects, "StatefulSet", pod + ["containers", 0, "readinessProbe", "httpGet", "port"], "http"))
    check_fails("a volume", check_references, changed(objects, "StatefulSet", pod + ["containers", 0, "volumeMounts", 0, "name"], "dat"))
    check_fails("an unknown key", check_compose, compose.replace("read_only:", "read_onyl:"), folder)
    check_fails("a wrong value", check_compose, compose.replace("5m", "five"), folder)
    check_fails("an unknown setting", check_settings, "compose.yaml", compose.replace("MILLRACE_LISTENERS", "MILLRACE_LISTNERS"), settings)


def main(root):
    table = (root / "engine/base/src/settings/table.rs").read_text(encoding="utf-8")
    keys = re.findall(r'^ +[a-z0-9_]+: [^=]+= "([a-z0-9.]+)"', table, re.MULTILINE)
    settings = {"MILLRACE_" + key.upper().replace(".", "_") for key in keys}
    packaging = root / "packaging"
    kubernetes = packaging / "kubernetes"
    plain, ring = kustomized(kubernetes), kustomized(kubernetes / "io_uring")
    for objects in (plain, ring):
        check_schemas(objects)
        check_references(objects)
    of = lambda objects: next(item for item in objects if item["kind"] == "StatefulSet")["spec"]["template"]["spec"]["securityContext"]
    need(of(plain)["seccompProfile"]["type"] == "RuntimeDefault", "the plain manifest wants a profile that a node may not have")
    profile = of(ring)["seccompProfile"]["localhostProfile"]
    need((packaging / pathlib.Path(profile).name).is_file(), f"there is no profile {profile}")
    container = packaging / "container"
    compose = (container / "compose.yaml").read_text(encoding="utf-8")
    check_compose(compose, container)
    for path in (container / "compose.yaml", container / "Containerfile", kubernetes / "millrace.yaml"):
        check_settings(path.name, path.read_text(encoding="utf-8"), settings)
    print(f"manifests-test: {len(plain)} objects of Kubernetes {KUBERNETES}, the io_uring patch and the compose file are right")
    check_planted(plain, compose, container, settings)
    print("manifests-test: what was broken on purpose was found")


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]).resolve())
    except Failed as failure:
        sys.exit(f"manifests-test: FAILED: {failure}")
