"""The `adapters` library in a Python of its own: this file is both the client and the process it starts.

The library wants an older transformers than the other peers, so it lives in .venv-adapters (scripts/test makes it).
Requests and answers are JSON objects, one a line."""

import json
import os
import pathlib
import subprocess
import sys

PYTHON = pathlib.Path(__file__).parents[2] / ".venv-adapters/bin/python3"


class Library:
    """A running library; every method is a request."""

    def __init__(self):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        self.process = subprocess.Popen([PYTHON, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)

    def __getattr__(self, action):
        def ask(**values):
            request = {"action": action, **values}
            self.process.stdin.write(json.dumps(request, default=str) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            assert answer, f"the adapters library stopped at {action}"
            return json.loads(answer)
        return ask

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve():
    import adapters
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    # What the library has to be told of a family that it does not know.
    llama_like = {"adapter_methods": ["bottleneck"], "model_embeddings": "embed_tokens", "model_layers": "layers",
                  "layer_self_attn": "self_attn", "layer_cross_attn": None, "attn_k_proj": "k_proj",
                  "attn_q_proj": "q_proj", "attn_v_proj": "v_proj", "attn_o_proj": "o_proj",
                  "layer_intermediate_proj": "mlp.up_proj", "layer_output_proj": "mlp.down_proj",
                  "layer_pre_self_attn": "input_layernorm", "layer_pre_ffn": "post_attention_layernorm"}

    def load(folder):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        known = model.config.model_type in ("llama", "mistral", "gpt2")
        adapters.init(model, interface=None if known else adapters.AdapterModelInterface(**llama_like))
        return model.eval()

    def load_with_adapter(base, folder):
        """Fails where a tensor of the file is not used, or one of the model is not in the file."""
        model, found = load(base), {}
        name = model.load_adapter(str(folder), use_safetensors=True, loading_info=found, set_active=True)
        assert not found["missing_keys"] and not found["unexpected_keys"], found
        return model.eval(), name

    def nll_sum(model, ids, supervised):
        logits = model(torch.tensor([ids])).logits[0, :-1].float()
        keep = torch.tensor(supervised[1:])
        return torch.nn.functional.cross_entropy(logits[keep], torch.tensor(ids[1:])[keep], reduction="sum")

    def nlls(model, rows):
        with torch.no_grad():
            return [nll_sum(model, *row).item() for row in rows]

    def score(base, folder, rows):
        return nlls(load_with_adapter(base, folder)[0], rows)

    def make(base, folder, config, rows):
        """Saves an adapter of this BnConfig whose values all differ from zero; its likelihoods."""
        torch.manual_seed(4)
        model = load(base)
        model.add_adapter("theirs", config=adapters.BnConfig(**config), set_active=True)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".adapters.theirs." in name:
                    parameter.normal_(0, 0.2)
        model.save_adapter(folder, "theirs", use_safetensors=True)
        return nlls(model.eval(), rows)

    def descend(base, folder, rows, rate):
        """One step of plain descent on the mean loss: the loss before, the gradient's norm, likelihoods after."""
        model, name = load_with_adapter(base, folder)
        model.train_adapter(name)
        model.eval()
        loss = sum(nll_sum(model, *row) for row in rows) / sum(sum(supervised) for _, supervised in rows)
        loss.backward()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        norm = torch.cat([parameter.grad.flatten() for parameter in trained]).norm()
        with torch.no_grad():
            for parameter in trained:
                parameter.sub_(rate * parameter.grad)
        return {"loss": loss.item(), "grad_norm": norm.item(), "nlls": nlls(model, rows)}

    actions = {"score": score, "make": make, "descend": descend}
    answers, sys.stdout = sys.stdout, sys.stderr  # the library prints
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(actions[request.pop("action")](**request)), file=answers, flush=True)


if __name__ == "__main__":
    serve()
