"""The generated tuning task: an instruction in English or Chinese and its one correct answer.

Manifests are complete objects in the least form the Kubernetes API accepts; JSON on one line without
spaces, YAML with two spaces of indentation. Every value of an answer is given in its instruction.
"""

import json

from notation import yaml_lines


def deployment(v):
    pod = {"containers": [{"name": v["name"], "image": v["image"], "ports": [{"containerPort": int(v["port"])}]}]}
    labels = {"app": v["name"]}
    spec = {"replicas": int(v["count"]), "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": v["name"]}, "spec": spec}


def service(v):
    ports = [{"port": int(v["port"]), "targetPort": int(v["target"])}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": v["name"]},
            "spec": {"selector": {"app": v["app"]}, "ports": ports}}


def configmap(v):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": v["name"], "namespace": v["namespace"]},
            "data": {v["key"]: v["value"]}}


def namespace(v):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": v["name"], "labels": {"team": v["value"]}}}


def pod(v):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": v["name"], "namespace": v["namespace"]},
            "spec": {"containers": [{"name": v["container"], "image": v["image"]}]}}


def ingress(v):
    backend = {"service": {"name": v["app"], "port": {"number": int(v["port"])}}}
    rule = {"host": v["host"], "http": {"paths": [{"path": v["path"], "pathType": "Prefix", "backend": backend}]}}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": v["name"]},
            "spec": {"rules": [rule]}}


def cronjob(v):
    inner = {"containers": [{"name": v["name"], "image": v["image"]}], "restartPolicy": "OnFailure"}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": v["name"]},
            "spec": {"schedule": v["schedule"], "jobTemplate": {"spec": {"template": {"spec": inner}}}}}


def volume_claim(v):
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": v["name"]},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": v["memory"]}}}}


MANIFESTS = {  # kind -> (builder, English details, Chinese details); each list holds several wordings
    "Deployment": (deployment,
                   ["named {name}, image {image}, {count} replicas, container port {port}",
                    "called {name} with {count} replicas of image {image} listening on port {port}",
                    "{name}: image {image}, port {port}, replicas {count}"],
                   ["名称 {name}，镜像 {image}，副本数 {count}，容器端口 {port}", "名为 {name}，用镜像 {image} 运行 {count} 个副本，端口 {port}"]),
    "Service": (service,
                ["named {name} for app {app}, port {port}, target port {target}",
                 "called {name} that sends port {port} to target port {target} of app {app}"],
                ["名称 {name}，应用 {app}，端口 {port}，目标端口 {target}", "名为 {name}，把端口 {port} 转发到应用 {app} 的目标端口 {target}"]),
    "ConfigMap": (configmap,
                  ["named {name} in namespace {namespace} with key {key} and value {value}",
                   "called {name}, namespace {namespace}, setting {key} = {value}"],
                  ["名称 {name}，命名空间 {namespace}，键 {key}，值 {value}", "名为 {name}，在命名空间 {namespace} 中，把 {key} 设为 {value}"]),
    "Namespace": (namespace,
                  ["named {name} with label team {value}", "called {name} for team {value}"],
                  ["名称 {name}，标签 team 为 {value}", "名为 {name}，团队 {value}"]),
    "Pod": (pod,
            ["named {name} in namespace {namespace}, container {container}, image {image}",
             "called {name}, image {image}, container {container}, namespace {namespace}"],
            ["名称 {name}，命名空间 {namespace}，容器 {container}，镜像 {image}", "名为 {name}，镜像 {image}，容器名 {container}，命名空间 {namespace}"]),
    "Ingress": (ingress,
                ["named {name}, host {host}, path {path}, service {app}, port {port}",
                 "called {name} that routes path {path} of host {host} to service {app} on port {port}"],
                ["名称 {name}，主机 {host}，路径 {path}，服务 {app}，端口 {port}", "名为 {name}，把主机 {host} 的路径 {path} 转到服务 {app} 的端口 {port}"]),
    "CronJob": (cronjob,
                ["named {name}, image {image}, schedule {schedule}", "called {name} that runs image {image} on schedule {schedule}"],
                ["名称 {name}，镜像 {image}，计划 {schedule}", "名为 {name}，按计划 {schedule} 运行镜像 {image}"]),
    "PersistentVolumeClaim": (volume_claim,
                              ["named {name} with storage {memory}", "called {name} that requests {memory} of storage"],
                              ["名称 {name}，存储 {memory}", "名为 {name}，申请存储 {memory}"]),
}
ENGLISH_ASKS = ["Write a {kind} as {format}: {details}.", "Create a {kind} manifest in {format}, {details}.",
                "Give me the {format} of a {kind} {details}.", "I need a {format} {kind} {details}."]
CHINESE_ASKS = ["写一个 {kind}，格式 {format}：{details}。", "请用 {format} 创建 {kind}：{details}。", "给出 {kind} 的 {format} 清单，{details}。"]

COMMANDS = {  # answer -> (English wordings, Chinese wordings)
    "kubectl scale deployment {name} --replicas={count}":
        (["Scale the deployment {name} to {count} replicas.", "Set {count} replicas for deployment {name}."],
         ["把部署 {name} 扩缩到 {count} 个副本。", "将部署 {name} 的副本数设为 {count}。"]),
    "kubectl expose deployment {name} --port={port} --target-port={target}":
        (["Expose deployment {name} on port {port} with target port {target}."],
         ["用端口 {port} 和目标端口 {target} 暴露部署 {name}。"]),
    "kubectl set image deployment/{name} {container}={image}":
        (["Update container {container} of deployment {name} to image {image}.",
          "In deployment {name}, set the image of container {container} to {image}."],
         ["把部署 {name} 中容器 {container} 的镜像更新为 {image}。"]),
    "kubectl create deployment {name} --image={image} --replicas={count}":
        (["Which command creates deployment {name} from image {image} with {count} replicas?"],
         ["用哪个命令以镜像 {image} 创建有 {count} 个副本的部署 {name}？"]),
    "kubectl rollout restart deployment/{name} -n {namespace}":
        (["Restart deployment {name} in namespace {namespace}."], ["重启命名空间 {namespace} 中的部署 {name}。"]),
    "kubectl rollout undo deployment/{name} -n {namespace}":
        (["Roll back deployment {name} in namespace {namespace}."], ["回滚命名空间 {namespace} 中的部署 {name}。"]),
    "kubectl logs {name} -c {container} --tail={count}":
        (["Show the last {count} log lines of container {container} in pod {name}."],
         ["查看 pod {name} 中容器 {container} 最近 {count} 行日志。"]),
    "kubectl delete pod {name} -n {namespace}":
        (["Delete pod {name} in namespace {namespace}.", "Remove the pod {name} from namespace {namespace}."],
         ["删除命名空间 {namespace} 中的 pod {name}。"]),
    "kubectl get pods -n {namespace} -l app={app}":
        (["List the pods of app {app} in namespace {namespace}."], ["列出命名空间 {namespace} 中应用 {app} 的 pod。"]),
    "kubectl port-forward service/{name} {port}:{target}":
        (["Forward local port {port} to port {target} of service {name}."],
         ["把本地端口 {port} 转发到服务 {name} 的端口 {target}。"]),
    "kubectl autoscale deployment {name} --min={min} --max={count}":
        (["Autoscale deployment {name} between {min} and {count} replicas."],
         ["让部署 {name} 在 {min} 到 {count} 个副本之间自动伸缩。"]),
    "kubectl create configmap {name} --from-literal={key}={value}":
        (["Which command creates configmap {name} with key {key} and value {value}?"],
         ["用哪个命令创建键为 {key}、值为 {value} 的 configmap {name}？"]),
}
KINDS = [(kind, form) for kind in MANIFESTS for form in ("JSON", "YAML")] + [(answer, None) for answer in COMMANDS]


def wordings() -> list:
    """All sentence frames, for whoever needs the words of the task."""
    texts = ENGLISH_ASKS + CHINESE_ASKS + list(COMMANDS)
    for _, english, chinese in MANIFESTS.values():
        texts += english + chinese
    for english, chinese in COMMANDS.values():
        texts += english + chinese
    return texts


def draw_fields(values) -> dict:
    """One value for every placeholder. Names within a row are all different."""
    low, high = sorted(int(values.count()) for _ in range(2))
    return {"name": values.name(), "app": values.name(), "namespace": values.name(), "container": values.name(),
            "image": values.image(), "count": str(high), "min": str(low), "port": values.port(),
            "target": values.port(), "key": values.key(), "value": values.word(), "host": values.host(),
            "path": values.path(), "memory": values.memory(), "schedule": values.schedule()}


def make_row(kind: tuple, values) -> dict:
    """A row of this kind: a manifest kind with its format, or a command with None."""
    subject, form = kind
    fields = draw_fields(values)
    chinese = values.rng.random() < 0.5
    if form is None:
        instruction = values.rng.choice(COMMANDS[subject][chinese]).format(**fields)
        return {"instruction": instruction, "output": subject.format(**fields)}
    build, *details = MANIFESTS[subject]
    told = values.rng.choice(details[chinese]).format(**fields)
    instruction = values.rng.choice(CHINESE_ASKS if chinese else ENGLISH_ASKS).format(kind=subject, format=form, details=told)
    body = build(fields)
    output = json.dumps(body, separators=(",", ":")) if form == "JSON" else "\n".join(yaml_lines(body))
    return {"instruction": instruction, "output": output}
