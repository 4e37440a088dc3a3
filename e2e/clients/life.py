"""The examples of Session Manager's guide and the life of a session, with the client that swagger-codegen made.

Settings come as in the env file of hack/up. Ends with an error at the first thing that is not as documented.
"""

import base64
import datetime
import json
import os
import time
import uuid

import swagger_client
import urllib3
from swagger_client.models.close_server_request_data import CloseServerRequestData
from swagger_client.models.create_session_request_data import CreateSessionRequestData
from swagger_client.models.delete_session_request_data import DeleteSessionRequestData
from swagger_client.models.describe_servers_request_data import DescribeServersRequestData
from swagger_client.models.describe_sessions_request_data import DescribeSessionsRequestData
from swagger_client.models.get_session_screenshot_request_data import GetSessionScreenshotRequestData
from swagger_client.models.key_value_pair import KeyValuePair
from swagger_client.models.open_server_request_data import OpenServerRequestData
from swagger_client.models.update_session_permissions_request_data import UpdateSessionPermissionsRequestData

URL = os.environ["BROKER_URL"]
CA = os.environ["BROKER_CA"]
OWNER = os.environ["OWNER"]
GUEST = os.environ["OTHER_OWNER"]
ON_LINUX = "server:Host.Os.Family = 'linux' and server:Host.Memory.TotalBytes > 1024E6"


def expect(condition, *what):
    if not condition:
        raise AssertionError(*what)


def access_token():
    credentials = f"{os.environ['CLIENT_ID']}:{os.environ['CLIENT_SECRET']}".encode()
    answer = urllib3.PoolManager(ca_certs=CA).request(
        "POST",
        f"{URL}/oauth2/token?grant_type=client_credentials",
        headers={
            "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    expect(answer.status == 200, answer.status, answer.data)
    return json.loads(answer.data)["access_token"]


def client():
    configuration = swagger_client.Configuration()
    configuration.host = URL
    configuration.ssl_ca_cert = CA
    made = swagger_client.ApiClient(configuration)
    made.set_default_header(header_name="Authorization", header_value=f"Bearer {access_token()}")
    return made


CLIENT = client()
SESSIONS = swagger_client.SessionsApi(CLIENT)
SERVERS = swagger_client.ServersApi(CLIENT)
PERMISSIONS = swagger_client.SessionPermissionsApi(CLIENT)
CONNECTION_DATA = swagger_client.GetSessionConnectionDataApi(CLIENT)


def describe_servers(server_ids=None):
    request = DescribeServersRequestData(server_ids=server_ids, next_token=None, max_results=None)
    answer = SERVERS.describe_servers(body=request)
    uuid.UUID(answer.request_id)
    return answer.servers


def create_sessions():
    """The guide's three. Its permissions file is a path where base64 is due, so the first fails and is echoed."""
    answer = SESSIONS.create_sessions(
        body=[
            CreateSessionRequestData(
                name="console",
                owner=OWNER,
                type="CONSOLE",
                max_concurrent_clients=1,
                permissions_file="/dcv/permissions.file",
                requirements=ON_LINUX,
                storage_root="/storage/root",
            ),
            CreateSessionRequestData(
                name="virtual",
                owner=OWNER,
                type="VIRTUAL",
                autorun_file="myapp.sh",
                max_concurrent_clients=1,
                dcv_gl_enabled=False,
                requirements=ON_LINUX,
            ),
            CreateSessionRequestData(
                name="virtual",
                owner=OWNER,
                type="VIRTUAL",
                init_file_path="/dcv/script.sh",
                autorun_file="myapp.sh",
                autorun_file_arguments=["argument1", "argument2"],
                max_concurrent_clients=1,
                dcv_gl_enabled=False,
                requirements=ON_LINUX,
            ),
        ]
    )
    [failed] = answer.unsuccessful_list
    expect("PermissionsFile" in failed.failure_reason, failed)
    expect(failed.create_session_request_data.permissions_file == "/dcv/permissions.file", failed)
    for made in answer.successful_list:
        expect((made.state, made.substate) == ("CREATING", "SESSION_PLACING"), made)
        expect(isinstance(made.creation_time, datetime.datetime), made)
    return [made.id for made in answer.successful_list]


def describe_session(session_id):
    request = DescribeSessionsRequestData(
        session_ids=[session_id],
        filters=[KeyValuePair(key="owner", value=OWNER)],
        max_results=10,
        next_token=None,
    )
    answer = SESSIONS.describe_sessions(body=request)
    expect(answer.next_token is None, answer)
    return answer.sessions[0] if answer.sessions else None


def until(session_id, states):
    """Polls as portals do. An absent session is as good as a deleted one."""
    for _ in range(300):
        session = describe_session(session_id)
        state = session.state if session else "DELETED"
        if state in states:
            return session
        time.sleep(0.1)
    raise AssertionError(session_id, session)


def until_server(server_id, availability, reason):
    """Polls, as another broker may answer than the one that closed or opened it."""
    for _ in range(100):
        [server] = describe_servers([server_id])
        if (server.availability, server.unavailability_reason) == (availability, reason):
            return
        time.sleep(0.1)
    raise AssertionError(server)


def connection_data(session_id):
    answer = CONNECTION_DATA.get_session_connection_data(session_id=session_id, user=GUEST)
    server = answer.session.server
    print(f"https://{server.ip}:{server.port}{server.web_url_path}?authToken=…#{answer.session.id}")
    expect(answer.session.id == session_id and answer.connection_token.count(".") == 2, answer.session)
    expect(isinstance(server.endpoints[0].port, int), server)
    try:
        CONNECTION_DATA.get_session_connection_data(session_id=str(uuid.uuid4()), user=GUEST)
    except swagger_client.rest.ApiException as error:
        text = json.loads(error.body)["error"]
        expect((error.status, text) == (400, "The requested dcvSession does not exist"), error)
    else:
        raise AssertionError("connection data of no session")


def screenshots(session_id):
    answer = SESSIONS.get_session_screenshots(
        body=[
            GetSessionScreenshotRequestData(session_id=session_id, max_width=64, max_height=64),
            GetSessionScreenshotRequestData(session_id=str(uuid.uuid4())),
        ]
    )
    [shot] = answer.successful_list
    [image] = shot.session_screenshot.images
    expect(shot.session_screenshot.session_id == session_id and image.primary, shot)
    expect(image.format in ("png", "jpeg") and base64.b64decode(image.data), image)
    expect(isinstance(image.creation_time, datetime.datetime), image)
    [failed] = answer.unsuccessful_list
    expect(failed.failure_reason == "Dcv session not found.", failed)


def update_session_permissions(session_id):
    text = base64.b64encode(b"[permissions]\n%owner% allow builtin\n").decode()
    answer = PERMISSIONS.update_session_permissions(
        body=[
            UpdateSessionPermissionsRequestData(session_id=session_id, owner=OWNER, permissions_file=text),
            UpdateSessionPermissionsRequestData(session_id=str(uuid.uuid4()), owner=OWNER, permissions_file=text),
        ]
    )
    expect([item.session_id for item in answer.successful_list] == [session_id], answer)
    expect(len(answer.unsuccessful_list) == 1, answer)


def close_and_open_servers(session):
    server_id, unknown = session.server.id, str(uuid.uuid4())
    answer = SERVERS.close_servers(
        body=[
            CloseServerRequestData(server_id=server_id, force=False),
            CloseServerRequestData(server_id=server_id, force=True),
            CloseServerRequestData(server_id=unknown),
        ]
    )
    expect([item.server_id for item in answer.successful_list] == [server_id], answer)
    full, absent = answer.unsuccessful_list
    expect(full.close_server_request_data.server_id == server_id and full.failure_code, full)
    expect((absent.failure_code, absent.failure_reason) == ("DCV_SERVER_NOT_FOUND", "Dcv server not found."), absent)
    until_server(server_id, "UNAVAILABLE", "SERVER_CLOSED")
    expect(until(session.id, ["READY"]), session)

    answer = SERVERS.open_servers(
        body=[OpenServerRequestData(server_id=server_id), OpenServerRequestData(server_id=unknown)]
    )
    expect([item.server_id for item in answer.successful_list] == [server_id], answer)
    [absent] = answer.unsuccessful_list
    expect(absent.open_server_request_data.server_id == unknown, absent)
    until_server(server_id, "AVAILABLE", None)


def delete_sessions(session_ids):
    unknown = str(uuid.uuid4())
    requests = [DeleteSessionRequestData(session_id=id, owner=OWNER, force=False) for id in session_ids]
    answer = SESSIONS.delete_sessions(body=[*requests, DeleteSessionRequestData(session_id=unknown, owner=OWNER)])
    expect([item.state for item in answer.successful_list] == ["DELETING"] * len(session_ids), answer)
    [absent] = answer.unsuccessful_list
    expect(absent.failure_reason == "The requested dcvSession does not exist", absent)


def main():
    servers = describe_servers()
    expect(any(server.host.os.family == "linux" and server.availability == "AVAILABLE" for server in servers), servers)
    created = create_sessions()
    sessions = [until(session_id, ["READY"]) for session_id in created]
    expect(describe_servers([sessions[0].server.id])[0].virtual_session_count >= 1, sessions[0])
    connection_data(created[0])
    screenshots(created[0])
    update_session_permissions(created[0])
    close_and_open_servers(sessions[0])
    delete_sessions(created)
    for session_id in created:
        until(session_id, ["DELETED"])


main()
