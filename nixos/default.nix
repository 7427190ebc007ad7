# All that the flake has, as a function of what it is made with. It can be called without a flake as well:
#
#     import ./nixos { nixpkgs = { inherit lib legacyPackages; }; }
#
# Nothing here needs disko, agenix or sops-nix: who has them imports their modules beside ours.
{
  nixpkgs,
  # The source; without what was built in it.
  self ? builtins.path {
    name = "snowbank-source";
    path = ../.;
    filter =
      path: _:
      !(builtins.elem (baseNameOf path) [
        ".git"
        "result"
        "target"
      ]);
  },
  # Modules that each host of the example gets besides, such as those of disko and agenix.
  extraModules ? [ ],
}:
let
  inherit (nixpkgs) lib;
  systems = [
    "x86_64-linux"
    "aarch64-linux"
  ];
  forEachSystem = build: lib.genAttrs systems (system: build nixpkgs.legacyPackages.${system});
  package =
    pkgs:
    import ./package.nix {
      inherit lib;
      inherit (pkgs) rustPlatform;
      source = self;
    };
  overlay = final: _: { snowbank = package final; };

  nixosModules = {
    default = ./modules/default.nix;
    snowbank = ./modules/server.nix;
    snowbank-client = ./modules/client.nix;
    agent = ./modules/agent.nix;
    proxy = ./modules/proxy.nix;
    runner = ./modules/gitlab-runner.nix;
    vm-runner = ./modules/vm-runner.nix;
    agenix = ./modules/agenix.nix;
    apt-cache = ./modules/apt-cache.nix;
    builders = ./modules/builders.nix;
    yocto-cache = ./modules/yocto-cache.nix;
    harmonia = ./modules/harmonia.nix;
    internal-ca = ./modules/internal-ca.nix;
    jenkins = ./modules/jenkins.nix;
    nix-settings = ./modules/nix-settings.nix;
    storage = ./modules/storage.nix;
    monitoring = ./modules/monitoring.nix;
  };

  host =
    file:
    lib.nixosSystem {
      modules = [
        nixosModules.default
        { nixpkgs.overlays = [ overlay ]; }
        file
      ]
      ++ extraModules;
    };
  hosts = lib.genAttrs [
    "dev-workstation"
    "ec2-graviton"
    "ec2-x86_64"
    "gce-runner"
    "jenkins-controller"
    "jenkins-controller-ephemeral"
    "kubevirt-runner"
    "on-prem-runner"
    "proxmox-golden"
    "vm-builder"
    "vm-builder-demo"
    "zfs-proto-1"
    "zfs-proto-2"
    "zfs-proto-3"
  ] (name: ./hosts/${name}.nix);

  # Tests in virtual machines, for who has KVM and a cache: `nix flake check`.
  vmTests =
    pkgs:
    lib.mapAttrs'
      (
        name: file:
        lib.nameValuePair "vm-${name}" (
          pkgs.testers.runNixOSTest (
            import file {
              # Their packages are those of the test, which have ours.
              modules = [ nixosModules.default ];
            }
          )
        )
      )
      {
        first-boot = ./tests/vm/first-boot.nix;
        push-and-substitute = ./tests/vm/push-and-substitute.nix;
        three-nodes = ./tests/vm/three-nodes.nix;
      };

  image = name: kind: (host hosts.${name}).config.system.build.images.${kind};
  images = {
    x86_64-linux = {
      ami-ec2-x86_64 = image "ec2-x86_64" "amazon";
      image-gce-runner = image "gce-runner" "google-compute";
      image-kubevirt-runner = image "kubevirt-runner" "kubevirt";
      image-proxmox-golden = image "proxmox-golden" "proxmox";
    };
    aarch64-linux.ami-ec2-graviton = image "ec2-graviton" "amazon";
  };
in
{
  inherit nixosModules;
  overlays.default = overlay;
  nixosConfigurations = builtins.mapAttrs (_: host) hosts;

  packages = lib.recursiveUpdate (forEachSystem (pkgs: rec {
    default = snowbank;
    snowbank = package pkgs;
  })) images;

  # What of a host can be told without building it: that it evaluates, with all of its assertions.
  checks = lib.genAttrs systems (
    system:
    let
      own = lib.filterAttrs (
        _: built:
        built.config.nixpkgs.hostPlatform == system
        || (built.config.nixpkgs.hostPlatform.system or "") == system
      ) (builtins.mapAttrs (_: host) hosts);
    in
    lib.mapAttrs' (name: built: lib.nameValuePair "host-${name}" built.config.system.build.toplevel) own
    // vmTests (nixpkgs.legacyPackages.${system}.extend overlay)
  );

  # A host as a virtual machine on this one: `nix run .#vm-NAME`.
  apps = forEachSystem (
    pkgs:
    lib.mapAttrs' (
      name: file:
      lib.nameValuePair "vm-${name}" {
        type = "app";
        meta.description = "Runs the host ${name} as a virtual machine";
        program =
          let
            machine = (host file).extendModules {
              modules = [ { nixpkgs.hostPlatform = lib.mkForce pkgs.stdenv.hostPlatform.system; } ];
            };
          in
          toString (
            pkgs.writeShellScript "vm-${name}" ''
              exec ${pkgs.bash}/bin/bash ${./programs/run-vm} "$@" ${lib.getExe machine.config.system.build.vm}
            ''
          );
      }
    ) hosts
  );

  devShells = forEachSystem (pkgs: {
    default = pkgs.mkShell {
      inputsFrom = [ (package pkgs) ];
      packages = [
        pkgs.cargo-deny
        pkgs.cargo-fuzz
        pkgs.clippy
        pkgs.gnuplot
        pkgs.nginx
        pkgs.rustfmt
        pkgs.wrk
      ];
    };
  });

  formatter = forEachSystem (pkgs: pkgs.nixfmt);
}
