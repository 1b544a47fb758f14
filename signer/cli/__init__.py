"""The facility admin's commands: ``certauth signer …``."""

from __future__ import annotations

from certauth.cli.output import Group, Mount
from certauth.cli.output import group as make_group

user = make_group(
    "user",
    help="Enrol people, list them, disable them.",
    mounts={
        "enroll": Mount(target="signer.cli.user:enroll", help="Enrol a person, or change what they are enrolled for."),
        "import": Mount(target="signer.cli.importing:import_", help="Enrol many people from a CSV file."),
        "invite": Mount(target="signer.cli.invitations:invite", help="Make an invitation: a one-time code."),
        "invitations": Mount(target="signer.cli.invitations:invitations", help="List invitations."),
        "withdraw-invite": Mount(target="signer.cli.invitations:withdraw_invite", help="Withdraw an invitation."),
        "applications": Mount(target="signer.cli.applications:applications", help="List who waits to be enrolled."),
        "approve": Mount(target="signer.cli.applications:approve", help="Enrol somebody who waits."),
        "deny": Mount(target="signer.cli.applications:deny", help="Turn down somebody who waits."),
        "list": Mount(target="signer.cli.user:list_", help="List who is enrolled."),
        "show": Mount(target="signer.cli.user:show", help="Show one person with their live credentials."),
        "disable": Mount(target="signer.cli.user:disable", help="Refuse new grants and revoke what is alive."),
        "enable": Mount(target="signer.cli.user:enable", help="Let a disabled person log in again."),
        "revoke": Mount(target="signer.cli.user:revoke", help="Revoke a person's credentials, or a single one."),
        "link": Mount(target="signer.cli.logins:link", help="Let another login lead to a person."),
        "unlink": Mount(target="signer.cli.logins:unlink", help="Take a login from a person."),
        "delete-personal-data": Mount(target="signer.cli.logins:delete_personal_data", help="Delete who somebody is."),
    },
)

service_key = make_group(
    "key",
    help="The keys with which machines sign assertions.",
    mounts={
        "add": Mount(target="signer.cli.machine_keys:add", help="Add a public key."),
        "remove": Mount(target="signer.cli.machine_keys:remove", help="Remove a key."),
    },
)

service = make_group(
    "service",
    help="Enrol services, hosts and agents; make certificates for services.",
    mounts={
        "enroll": Mount(target="signer.cli.machines:enroll", help="Enrol a service, host or agent, or change its enrolment."),
        "code": Mount(target="signer.cli.machines:code", help="Make another one-time code for one."),
        "list": Mount(target="signer.cli.machine_state:list_", help="List services, hosts and agents."),
        "show": Mount(target="signer.cli.machine_state:show", help="Show one with its keys and live credentials."),
        "disable": Mount(target="signer.cli.machine_state:disable", help="Refuse new grants and revoke what is alive."),
        "enable": Mount(target="signer.cli.machine_state:enable", help="Let a disabled one ask again."),
        "certificate": Mount(target="signer.cli.service:certificate", help="Make a TLS certificate for a service, here."),
        "revoke": Mount(target="signer.cli.service:revoke", help="Revoke the certificates of a service."),
    },
)
service.add_command(service_key)

issuer = make_group(
    "issuer",
    help="Connect identity providers and see how they are.",
    mounts={
        "check": Mount(target="signer.cli.issuer:check", help="Look at a provider and print the settings it needs."),
        "add": Mount(target="signer.cli.issuer:add", help="Add a provider to the settings."),
        "list": Mount(target="signer.cli.issuer:list_", help="List the configured providers and the state of their keys."),
        "test": Mount(target="signer.cli.issuer:test", help="Try out what a provider's settings promise."),
        "explain": Mount(target="signer.cli.issuer:explain", help="Say what would become of a token, rule by rule."),
    },
)

key = make_group(
    "key",
    help="The keys that sign tokens: replace them, and withdraw a stolen one.",
    mounts={
        "list": Mount(target="signer.cli.keys:list_", help="List the facility's keys and their states."),
        "prepare": Mount(target="signer.cli.keys:prepare", help="Make the next key and publish it."),
        "activate": Mount(target="signer.cli.keys:activate", help="Let the prepared key sign from now on."),
        "retire": Mount(target="signer.cli.keys:retire", help="Publish a key no more."),
        "taint": Mount(target="signer.cli.keys:taint", help="Withdraw a stolen key and all it signed."),
    },
)

group: Group = make_group(
    "signer",
    help="Run a facility's signer: turn logins into certificates and tokens, and prove every grant.",
    mounts={
        "init": Mount(target="signer.cli.setup:init", help="Make a facility: keys, certificates, database, settings."),
        "serve": Mount(target="signer.cli.serve:serve", help="Run the service."),
        "status": Mount(target="signer.cli.setup:status", help="Show what this facility is and how its log stands."),
    },
)
group.add_command(issuer)
group.add_command(key)
group.add_command(user)
group.add_command(service)
