"""Sentence frames, key names and vocabulary for the pretraining corpus.

Nothing here has the shape of the tuning task: there is no instruction prompt, no question with its
answer, and no complete Kubernetes manifest. The words of the domain do occur, so that no token is
met for the first time during tuning.
"""

# field kind -> key names used in structured text, English noun phrases, Chinese noun phrases
FIELDS = {
    "name": (["name", "service", "app", "id", "title", "unit"], ["name", "service", "app", "workload", "component"],
             ["名称", "名字", "服务", "应用", "组件"]),
    "namespace": (["namespace", "ns", "project", "tenant", "space"], ["namespace", "project", "tenant"],
                  ["命名空间", "项目", "租户"]),
    "image": (["image", "container_image", "img", "artifact"], ["image", "container image", "artifact"],
              ["镜像", "容器镜像", "制品"]),
    "replicas": (["replicas", "count", "instances", "copies"], ["replicas", "copies", "instances"],
                 ["副本数", "副本", "实例数"]),
    "port": (["port", "containerPort", "listen", "number"], ["port", "container port", "listening port"],
             ["端口", "容器端口", "监听端口"]),
    "target": (["targetPort", "target_port", "backendPort", "forward"], ["target port", "backend port"],
               ["目标端口", "后端端口"]),
    "key": (["key", "setting", "label", "variable"], ["key", "setting", "label", "variable"],
            ["键", "设置", "标签", "变量"]),
    "value": (["value", "content", "data", "entry"], ["value", "content", "data"], ["值", "内容", "数据"]),
    "host": (["host", "hostname", "domain", "address"], ["host", "domain", "address"], ["主机", "域名", "地址"]),
    "path": (["path", "mountPath", "route", "prefix"], ["path", "route", "mount path"], ["路径", "路由", "挂载路径"]),
    "cpu": (["cpu", "cpu_limit", "cores"], ["cpu", "cpu limit", "cpu request"], ["处理器", "处理器上限", "cpu"]),
    "memory": (["memory", "ram", "storage", "size"], ["memory", "storage", "size"], ["内存", "存储", "大小"]),
    "schedule": (["schedule", "cron", "when"], ["schedule", "timetable"], ["计划", "时间表", "调度"]),
    "node": (["node", "machine", "worker", "nodeName"], ["node", "machine", "worker"], ["节点", "机器", "工作节点"]),
    "owner": (["owner", "user", "team", "author"], ["owner", "user", "team"], ["负责人", "用户", "团队"]),
    "backend": (["backend", "upstream", "serviceName", "database"], ["backend", "backend service", "database"],
                ["后端", "后端服务", "数据库"]),
    "container": (["container", "sidecar", "process"], ["container", "process"], ["容器", "进程"]),
    "min": (["minReplicas", "min", "lower"], ["minimum", "at least", "lower bound"], ["最少", "下限", "最小"]),
    "max": (["maxReplicas", "max", "upper"], ["maximum", "at most", "upper bound"], ["最多", "上限", "最大"]),
}

ENGLISH_LINKS = ["{f} {v}", "{f} {v}", "{f} is {v}", "the {f} is {v}", "with {f} {v}", "a {f} of {v}", "{f}: {v}",
                 "{f} = {v}", "has {f} {v}", "{f} set to {v}", "{f} called {v}", "uses {f} {v}", "in {f} {v}",
                 "on {f} {v}", "to {f} {v}", "{f} \"{v}\"", "{v} as {f}", "{v} for the {f}", "{f} named {v}"]
CHINESE_LINKS = ["{f} {v}", "{f}为 {v}", "{f}是 {v}", "{f}：{v}", "{f}叫 {v}", "{f}设为 {v}", "使用{f} {v}",
                 "{f}等于 {v}", "用 {v} 作为{f}", "在{f} {v} 中", "{f}“{v}”", "把{f}改为 {v}", "{f}名为 {v}"]
ENGLISH_OPENERS = ["Last night", "In the cluster", "According to the log", "Note", "The record says", "On Monday",
                   "After the update", "Our team found this", "Seen today", "The operator wrote down",
                   "For the new release", "As agreed", "The report lists", "One more thing", "We moved the workload"]
CHINESE_OPENERS = ["昨天", "在集群里", "根据日志", "请注意", "记录显示", "周一", "更新之后", "我们的团队发现", "今天看到",
                   "管理员写道", "对于新版本", "按照约定", "报告列出", "另外", "我们迁移了工作负载"]
ENGLISH_MENTIONS = [
    "We saw {v} yesterday, and {v} is still there.", "Whoever asked for {v} gets {v} and nothing else.",
    "First {v} failed, then {v} came back.", "The file mentions {v}. Please keep {v} as it is.",
    "{v} was deleted. Nobody missed {v}.", "If {v} is missing, create {v} again.", "From {v} to {w}, then from {w} to {v}.",
    "Rename {v} to {w}: now {w} replaces {v}.", "Both {v} and {w} are running; {v} is older than {w}.",
    "The answer was {v}, written \"{v}\" in the log.", "Is it {v} or {w}? It is {w}, not {v}.",
    "They call it {v}. In the file it is '{v}'.", "`{v}` stands for {v}, and `{w}` stands for {w}.",
]
CHINESE_MENTIONS = [
    "昨天看到 {v}，今天 {v} 还在。", "先是 {v} 失败，然后 {v} 恢复了。", "文件提到 {v}，请保留 {v}。", "{v} 已删除，没有人再用 {v}。",
    "如果没有 {v}，就再创建 {v}。", "从 {v} 到 {w}，再从 {w} 到 {v}。", "把 {v} 改名为 {w}：现在 {w} 代替 {v}。",
    "{v} 和 {w} 都在运行，{v} 比 {w} 更早。", "结果是 {v}，日志里写作“{v}”。", "是 {v} 还是 {w}？是 {w}，不是 {v}。",
]

# Words of the domain and of everyday instructions; they appear in lists and as random keys only.
VOCABULARY = (
    "apiVersion kind metadata spec template selector matchLabels labels annotations containers initContainers "
    "ports containerPort targetPort protocol replicas resources limits requests env volumes volumeMounts mountPath "
    "data rules host http paths path pathType Prefix backend service number schedule jobTemplate restartPolicy "
    "OnFailure Never Always scaleTargetRef minReplicas maxReplicas accessModes ReadWriteOnce storage "
    "PersistentVolumeClaim HorizontalPodAutoscaler Deployment Service ConfigMap Namespace Pod Ingress CronJob Job "
    "Secret StatefulSet DaemonSet ReplicaSet Node Role RoleBinding ServiceAccount NetworkPolicy "
    "app apps v1 v2 batch autoscaling networking k8s io kubectl get describe create delete apply scale expose rollout "
    "restart undo status history set image logs exec port forward label annotate autoscale top cordon drain taint "
    "deployment deployments pods nodes services namespaces configmap secret cronjob pvc from literal tail follow "
    "type name namespace min max cpu percent json yaml JSON YAML manifest command resource object "
    "Write Create Give Make Return Show Output Print Generate Produce Build Need Define Answer Explain Describe "
    "Which What Why How When Where Who Does Can Should Is Are Below is an instruction that describes a task response "
    "appropriately completes the request Instruction Response Use Run Open Stop Start Change Update Remove Read "
    "one line compact only with and for in on to of as called named listening running every hosts requests"
).split()
CHINESE_VOCABULARY = (
    "请 写 创建 生成 给出 输出 一个 清单 命令 格式 用 使用 名为 镜像 端口 副本 命名空间 部署 服务 配置 容器 集群 节点 任务 定时 存储 "
    "卷 标签 键 值 主机 路径 转发 到 目标 扩容 缩容 重启 回滚 查看 日志 删除 更新 设置 暴露 状态 历史 自动 伸缩 最少 最多 什么 是 "
    "为什么 怎么 如何 哪个 哪里 解释 说明 作用 区别 回答 问题 一行 紧凑 只 需要 监听 运行 每天 计划 申请 大小 内存 处理器 持久 声明 "
    "入口 域名 规则 后端 服务名 最近 行 进入 本地 应用 实例 个 把 从 在 里 的 为 和 与 做"
).split()
NOTATION_OPENERS = ["{notation}", "{notation}:", "as {notation}", "in {notation}:", "the same in {notation}", "{notation} file",
                    "the {notation}:", "{notation} 格式", "用 {notation} 表示", "以 {notation} 写成：", "{notation} 清单"]
GROUP_KEYS = ("meta metadata runtime spec network info details config settings template limits resources item data "
              "source target labels status extra options").split()
