"""flocker-deploy's options and files, and what it posts, against a control service without nodes: over real TLS on loopback."""

import json
import re
import shutil

import pytest

from cli_programs import ok, run
from rest_service import Service
from test_flockerctl import Control

APPLICATION = "version: 1\napplications:\n  web: {image: nginx}\n"
DEPLOYMENT = "version: 1\nnodes: {}\n"
DONE = ("The cluster configuration has been updated. It may take a short while for changes to take effect, in particular if "
        "Docker images need to be pulled.\n")


@pytest.fixture(name="service", scope="module")
def make_service(tmp_path_factory):
    made = Service(tmp_path_factory.mktemp("rest"))
    yield made
    made.close()


@pytest.fixture(name="shop")
def make_shop(tmp_path):
    """A folder with files."""
    folder = tmp_path / "My Shop"
    folder.mkdir()
    (folder / "application.yml").write_text(APPLICATION)
    (folder / "deployment.yml").write_text(DEPLOYMENT)
    return folder


def deploy(service, folder, *words, env=None):
    return run("flocker-deploy", "-p", service.port, "-c", service.top, *words, cwd=folder, env=env)


def usage_error(done):
    """The text after ERROR:, which stands below the usage text."""
    assert (done.returncode, done.stdout) == (1, ""), done
    usage, _, text = done.stderr.partition("ERROR: ")
    assert usage.startswith("Usage: flocker-deploy [options] CONTROL-HOST [DEPLOYMENT-FILE] APPLICATION-FILE\n")
    return text.rstrip("\n")


def test_deploys(service, shop):
    done = deploy(service, shop, "127.0.0.1", "deployment.yml", "application.yml")
    assert (done.returncode, done.stdout, done.stderr) == (0, DONE, "")
    words = ("deploy", "-p", service.port, "--certs-path", service.top, "127.0.0.1", "deployment.yml", "application.yml")
    assert ok("flocker", *words, cwd=shop) == DONE
    assert ok("flocker", *words, cwd=shop, env={"FLOCKER_CERTS_PATH": "/nowhere"}) == DONE  # options win
    assert ok("flocker-deploy", "-p", service.port, "127.0.0.1", "deployment.yml", "application.yml", cwd=shop,
              env={"FLOCKER_CERTS_PATH": str(service.top)}) == DONE
    three = [f"--{name}={service.top}/{file}" for name, file in (("cacert", "cluster.crt"), ("cert", "user.crt"), ("key", "user.key"))]
    assert ok("flocker-deploy", "-p", service.port, *three, "127.0.0.1", "deployment.yml", "application.yml", cwd=shop) == DONE
    for name in ("cluster.crt", "user.crt", "user.key"):  # here is where they are looked for
        shutil.copy(service.top / name, shop)
    assert ok("flocker-deploy", "-p", service.port, "127.0.0.1", "deployment.yml", "application.yml", cwd=shop) == DONE


def test_usage_errors(service, shop):
    (shop / "bad.yml").write_text("a: [")
    (shop / "twice.yml").write_text("a: 1\na: 2\n")

    def error(*words):
        return usage_error(deploy(service, shop, *words))
    assert error() == error("h") == error("h", "a", "b", "c") == "Wrong number of arguments."
    assert error("h", "none.yml", "application.yml") == "No file exists at none.yml"
    assert error("h", "deployment.yml", "none.yml") == "No file exists at none.yml"
    assert error("h", "bad.yml", "application.yml").startswith("Deployment configuration at bad.yml could not be parsed as YAML:\n\nline ")
    assert error("h", "deployment.yml", "bad.yml").startswith("Application configuration at bad.yml could not be parsed as YAML:\n\nline ")
    assert error("h", "deployment.yml", "twice.yml").endswith("line 2: the same key twice")
    assert error("--frob", "h") == "option --frob not recognized"
    assert "--port" in error("-p", "x", "h", "deployment.yml", "application.yml")
    for name in ("cacert", "cert", "key"):
        assert error(f"--{name}=x", "h", "deployment.yml", "application.yml").startswith(
            f"Cannot use --certificates-directory and --{name} options together. ")
    files = ("h", "deployment.yml", "application.yml")
    for name, path in (("cacert", "cluster.crt"), ("cert", "user.crt"), ("key", "user.key")):
        assert usage_error(run("flocker-deploy", *files, cwd=shop)) == (
            f"File {path} does not exist. Use the flocker-ca command to create the credential, or use the --{name} flag to "
            "specify the credential location.")
        (shop / path).write_text("")
    assert error("h", "application.yml").startswith("Deployment configuration is missing: application.yml is no Compose file")
    assert error("--project=x", "h", "deployment.yml", "application.yml") == "--project is for Compose files, and application.yml is none"
    for words in (["--plan", "--wait"], ["--timeout=5"], ["-o", "json"], ["--project="], ["--wait", "--plan", "-o", "xml"]):
        assert error(*words, "h", "deployment.yml", "application.yml")
    assert error("--timeout=5", "h", "a") == "--timeout goes with --wait."
    done = run("flocker-deploy", "--version")
    assert done.returncode == 0 and re.fullmatch(r"\d+\.\d+\.\S+\n", done.stdout)


def test_limits(service, shop):
    """A small file cannot become a large one."""
    def error(text):
        (shop / "application.yml").write_text(text)
        return usage_error(deploy(service, shop, "h", "deployment.yml", "application.yml"))
    assert "nested too deeply" in error("[" * 100 + "]" * 100)
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9))
    assert "too many values" in error(laughs)
    assert "too long" in error("a: " + "x" * (1 << 20))


def test_server_refuses(service, shop):
    def refused(text, *words):
        done = deploy(service, shop, *words, "127.0.0.1", "deployment.yml", "application.yml")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", text + "\n")
    (shop / "deployment.yml").write_text('version: 1\nnodes: {"10.20.0.11": [web]}\n')
    refused("No known node with address 10.20.0.11.")
    refused("No known node with address 10.20.0.11.", "--plan")
    (shop / "application.yml").write_text("version: 1\napplications:\n  web: {image: 5}\n")
    refused("Application 'web' has a config error. Invalid Docker image name. Docker image names must have format "
            "'repository[:tag]'. Found ':'.")
    (shop / "application.yml").write_text("web: {image: x, ports: [1]}\n")
    refused("Application 'web' has a config error. 'ports' must be list of string values in the form of "
            "'host_port:container_port'.")
    (shop / "application.yml").write_text("[]")
    done = deploy(service, shop, "127.0.0.1", "deployment.yml", "application.yml")
    assert done.returncode == 1 and done.stderr.startswith("The provided JSON doesn't match the required schema. ")


# ---- what is posted ----


@pytest.fixture(name="echo")
def make_echo(service):
    """A control service that only takes down what it gets."""
    made = Control(service.top, "control-service")
    made.answers["POST", "/v1/configuration/_compose"] = (200, None)
    yield made
    made.close()


def posted(echo, service, folder, text, *words, env=None, warnings=""):
    (folder / "compose.yml").write_text(text)
    echo.seen.clear()
    done = run("flocker-deploy", "-p", echo.port, "-c", service.top, *words, "127.0.0.1", "compose.yml", cwd=folder, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, DONE, warnings), done
    return echo.seen[-1][2]


def test_compose_is_settled_here(echo, service, shop):
    (shop / ".env").write_text("TAG=from-file\nBOTH=file\n# comment\n")
    (shop / "a.env").write_text("A=1\nB='$TAG'\n")
    (shop / "b.env").write_text("B=2\nC=\"$TAG and $BOTH\"\nD\n")
    body = posted(echo, service, shop, """
x-base: &base {image: "nginx:${TAG}", restart: "no"}
services:
  web:
    <<: *base
    environment: [OWN=x, HERE, GONE, B=3]
    env_file: [a.env, {path: b.env}, {path: none.env, required: false}]
    command: echo $$HOME ${UNSET:-default} ${BOTH}
  db:
    <<: *base
    image: postgres
    environment: {N: 5, T: true, NONE: }
""", env={"BOTH": "environment", "HERE": "here"})
    assert body == {"applications": {
        "name": "myshop",
        "x-base": {"image": "nginx:from-file", "restart": "no"},
        "services": {
            "web": {"image": "nginx:from-file", "restart": "no", "command": "echo $HOME default environment",
                    "environment": {"A": "1", "B": "3", "C": "from-file and environment", "OWN": "x", "HERE": "here"}},
            "db": {"image": "postgres", "restart": "no", "environment": {"N": 5, "T": True}},
        }}}
    assert posted(echo, service, shop, "services: {}", "--project=Own", "--spread") == {
        "applications": {"name": "Own", "services": {}}, "spread": True}
    assert posted(echo, service, shop, "name: mine\nservices: {}")["applications"]["name"] == "mine"
    body = posted(echo, service, shop, "services: {web: {image: '${NOT_SET}x'}}",
                  warnings="Warning: the variable NOT_SET is not set; it stands for nothing.\n")
    assert body["applications"]["services"] == {"web": {"image": "x"}}


def test_compose_errors_here(echo, service, shop):
    def error(text):
        (shop / "compose.yml").write_text(text)
        return usage_error(run("flocker-deploy", "-p", echo.port, "-c", service.top, "h", "compose.yml", cwd=shop))
    assert error("services: {web: {image: '${X:?say which}'}}") == (
        "compose.yml: services.web.image: the variable X is not set: say which")
    assert error("services: {web: {image: x, ports: ['$(']}}") == (
        "compose.yml: services.web.ports: '$(' is no variable; write $$ for a $ that is meant as it is")
    assert "services.web: A file of variables cannot be read." in error("services: {web: {image: x, env_file: none.env}}")
    assert error("services: {web: {image: x, env_file: {path: a, format: raw}}}") == (
        "compose.yml: services.web: env_file.format is not supported")
    (shop / "odd.env").write_text("A=1\nthis is odd\n")
    assert error("services: {web: {image: x, env_file: odd.env}}") == (
        "compose.yml: services.web: ./odd.env: line 2: 'this is odd' is no name of a variable")
    (shop / ".env").write_text("A='x\n")
    assert "./.env: line 1: A: a quote does not end" in error("services: {}")
    assert echo.seen == []


def test_unknown_errors(echo, service, shop):
    """A page that is no answer of ours is shown as it is, without what would command the terminal."""
    echo.answers["POST", "/v1/configuration/_compose"] = (502, b"<h1>bad\x1b[2J</h1>")
    done = run("flocker-deploy", "-p", echo.port, "-c", service.top, "127.0.0.1", "deployment.yml", "application.yml", cwd=shop)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Unknown error: <h1>bad?[2J</h1>\n")
    echo.answers["POST", "/v1/configuration/_compose"] = (500, "d3a0f3c2@/1")
    done = run("flocker-deploy", "-p", echo.port, "-c", service.top, "127.0.0.1", "deployment.yml", "application.yml", cwd=shop)
    assert (done.returncode, done.stderr) == (1, 'Unknown error: "d3a0f3c2@/1"\n')
    assert json.loads(json.dumps(echo.seen[-1][2])) == {
        "applications": {"version": 1, "applications": {"web": {"image": "nginx"}}}, "deployment": {"version": 1, "nodes": {}}}


def test_no_server(service, shop):
    done = run("flocker-deploy", "-p", 1, "-c", service.top, "127.0.0.1", "deployment.yml", "application.yml", cwd=shop)
    assert done.returncode == 1 and done.stderr.startswith("Error: cannot reach the control service at 127.0.0.1:1:")
