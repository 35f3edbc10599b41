"""What transformers computes, under the names of `switchyard forward`."""

import torch


def _routers(model: torch.nn.Module):
    """(name as in switchyard, module) of each router: block 1 of the encoder is "encoder.1"."""
    for stack in ("encoder", "decoder"):
        for number, block in enumerate(getattr(model, stack).block):
            router = getattr(getattr(block.layer[-1], "mlp", None), "router", None)
            if router is not None:
                yield f"{stack}.{number}", router


def forward(model: torch.nn.Module, inputs: dict, gradients: bool = False, router_losses: bool = False) -> dict:
    out = {}

    def record(name):
        def hook(_module, _inputs, output):
            chosen, _, logits = output
            index = torch.where(chosen.sum(-1) > 0, chosen.argmax(-1), -1)
            out[f"router_logits.{name}"], out[f"expert_index.{name}"] = logits.detach(), index

        return hook

    hooks = [router.register_forward_hook(record(name)) for name, router in _routers(model)]
    extra = {"output_router_logits": True} if router_losses else {}
    model.zero_grad(set_to_none=True)
    result = model(**inputs, **extra)
    for hook in hooks:
        hook.remove()
    out["logits"] = result.logits.detach()
    out["encoder_last_hidden_state"] = result.encoder_last_hidden_state.detach()
    if "labels" in inputs and not router_losses:
        out["loss"] = result.loss.detach()
    if router_losses:
        out["load_balance_loss"] = (result.encoder_aux_loss + result.decoder_aux_loss).detach()
        out["router_z_loss"] = (result.encoder_z_loss + result.decoder_z_loss).detach()
    if gradients:
        result.loss.backward()
        for name, parameter in model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if not any(_routers(model)):  # a dense model has T5's names in Switchyard, whatever class it comes from
                name = name.replace(".mlp.", ".DenseReluDense.")
            # Equal input tables are one in Switchyard: its gradient is the sum of theirs.
            if name.endswith(".embed_tokens.weight") and torch.equal(parameter, model.shared.weight):
                name = "shared.weight"
            out[f"grad.{name}"] = out.get(f"grad.{name}", 0) + gradient
    return out
