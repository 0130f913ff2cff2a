"""Commands that systemd runs."""

from __future__ import annotations

import typer


def model_fetch(context: typer.Context) -> None:
    """Bring the planned model to this instance (aisandbox-model.service)."""
    from aisandbox.instance.fit import model

    model.fetch(context.obj.places, context.obj.manifest)


def mount_volume(context: typer.Context) -> None:
    """Mount the data volume that the user chose (aisandbox-volume.service)."""
    from aisandbox.instance.choose import options
    from aisandbox.instance.keep import volume
    from aisandbox.instance.run import services

    places = context.obj.places
    choice, _ = options.read(places, context.obj.manifest)
    moved = volume.mount(places, choice.data_volume)
    problem = volume.problem(places, choice.data_volume)
    if problem:
        print(f"{problem}. {problem.fix}")
    if moved and places.live:
        services.lay_out()
        services.refresh(
            services.CONFIGURE,
            services.MODEL,
            services.VLLM,
            services.OPEN_WEBUI,
            services.CERTIFICATE,
            *services.SANDBOX,
        )


def gpu_devices(context: typer.Context) -> None:
    """Load NVIDIA's driver and make its device files (aisandbox-gpu.service)."""
    from aisandbox.instance.fit import gpu

    gpu.prepare(context.obj.places)


def gpu_fabric(context: typer.Context) -> None:
    """Start the fabric manager where there are NVSwitches (aisandbox-fabric.service)."""
    from aisandbox.instance.fit import gpu

    gpu.start_fabric(context.obj.places)


def engine_sync(context: typer.Context) -> None:
    """Restart the engine when it serves something else than it should (aisandbox-engine-sync.service)."""
    from aisandbox.instance.serve import engine_sync as syncing

    print("Restarting the engine." if syncing.sync(context.obj.places) else "The engine needs no restart.")


def status_publish(context: typer.Context) -> None:
    """Keep the published state up to date (aisandbox-status.service)."""
    from aisandbox.instance.observe import publisher

    publisher.publish(context.obj.places, context.obj.manifest)
